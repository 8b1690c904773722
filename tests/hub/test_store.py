"""The store: names and paths, whole files only, cleaning up."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import pytest

from edgellm.errors import DownloadError, EdgeLLMError, ModelNotFoundError
from edgellm.hub import store
from edgellm.hub.checks import check, copy_checked
from edgellm.hub.incoming import incoming, place
from edgellm.hub.locks import lock_of
from edgellm.hub.source import Expected, silent

DATA = bytes(range(256)) * 9000  # more than two chunks
RIGHT = Expected(hashlib.sha256(DATA).hexdigest(), len(DATA))


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("smollm2:135m", "smollm2/135m.gguf"),
        ("llama3.2:1b", "llama3.2/1b.gguf"),
        ("hf.co/user/repo", "hf.co/user/repo.gguf"),
        ("hf.co/user/repo-1.5:Q4_K_M", "hf.co/user/repo-1.5/Q4_K_M.gguf"),
    ],
)
def test_a_name_is_a_path_and_back(home: Path, name, relative):
    assert store.target_of(name) == home / "models" / relative
    assert store.name_of(store.target_of(name)) == name


def test_a_file_appears_under_its_name_only_when_whole(home: Path):
    target = store.target_of("tiny:1m")
    with contextlib.suppress(ConnectionError), incoming(target, silent) as folder:
        (folder / "model.gguf").write_bytes(DATA)
        assert store.installed() == []
        raise ConnectionError("the download broke off")
    assert store.installed() == []
    with incoming(target, silent) as folder:
        copy_checked(io.BytesIO(DATA), folder / "model", RIGHT, silent, "")
        place((folder / "model",), target, folder)
    assert store.installed() == [store.Installed("tiny:1m", target, len(DATA))]
    assert target.read_bytes() == DATA


def test_what_an_interrupted_process_left_is_there_for_the_next_and_for_nobody_else(home: Path):
    target, other = store.target_of("tiny:1m"), store.target_of("tiny:2m")
    with contextlib.suppress(ConnectionError), incoming(target, silent) as folder:
        (folder / "model").write_bytes(b"half")
        raise ConnectionError("the download broke off")
    with incoming(other, silent) as folder:
        assert list(folder.iterdir()) == []
    with incoming(target, silent) as folder:
        assert (folder / "model").read_bytes() == b"half"
    assert store.installed() == []
    assert not folder.exists(), "this time all went well"
    assert list(target.parent.iterdir()) == []


def test_what_has_come_of_a_model_can_be_removed(home: Path, tmp_path: Path):
    target = store.target_of("tiny:1m")
    elsewhere = tmp_path / "blob.part"
    elsewhere.write_bytes(b"four")
    with contextlib.suppress(ConnectionError), incoming(target, silent) as folder:
        (folder / "model").write_bytes(b"half of it")
        (folder / "blob.part").symlink_to(elsewhere)
        raise ConnectionError("the download broke off")
    assert store.discard("tiny:1m") == store.Removed("tiny:1m", 14)
    assert not elsewhere.exists()
    assert list(target.parent.iterdir()) == []
    with pytest.raises(ModelNotFoundError, match="not in the model store"):
        store.discard("tiny:1m")


def test_the_lock_of_a_killed_process_is_removed_with_the_model(home: Path):
    target = store.target_of("tiny:1m")
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA)
    lock_of(target).write_bytes(b"")
    assert store.discard("tiny:1m").freed_bytes == len(DATA)
    assert list(target.parent.iterdir()) == []


def test_what_is_being_fetched_is_not_removed(home: Path):
    target = store.target_of("tiny:1m")
    with incoming(target, silent), pytest.raises(EdgeLLMError, match="another process is fetching tiny:1m"):
        store.discard("tiny:1m")
    assert list(target.parent.iterdir()) == []


def put_set(target: Path, tmp_path: Path, count: int = 3) -> list[Path]:
    with incoming(target, silent) as folder:
        cached = tmp_path / "cached"
        cached.write_bytes(b"1234")
        own = folder / "own"
        own.write_bytes(b"12345678")
        place((cached, *[own][: count - 1], *[cached] * (count - 2)), target, folder)
    return sorted(target.parent.iterdir())


def test_a_set_is_one_model_of_all_its_bytes(home: Path, tmp_path: Path):
    target = store.target_of("hf.co/user/repo:Q8_0")
    files = put_set(target, tmp_path)
    assert [file.name for file in files] == [f"Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert [file.stat().st_size for file in files] == [4, 8, 4]
    assert store.installed() == [store.Installed("hf.co/user/repo:Q8_0", files[0], 16)]
    assert store.find("hf.co/user/repo:Q8_0", Expected()) == files[0]
    removed = store.discard("hf.co/user/repo:Q8_0")
    assert (removed.freed_bytes, len(removed.kept)) == (8, 2)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_set_that_lacks_a_file_is_no_model_but_can_be_removed(home: Path, tmp_path: Path, missing):
    target = store.target_of("hf.co/user/repo:Q8_0")
    put_set(target, tmp_path)[missing].unlink()
    assert store.installed() == []
    assert store.find("hf.co/user/repo:Q8_0", Expected()) is None
    store.discard("hf.co/user/repo:Q8_0")
    assert list(target.parent.iterdir()) == []


def test_names_of_one_set_are_not_mistaken_for_anothers(home: Path, tmp_path: Path):
    put_set(store.target_of("hf.co/user/repo:Q8_0"), tmp_path)
    assert store.find("hf.co/user/repo:Q8", Expected()) is None
    assert store.find("hf.co/user/repo", Expected()) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (DATA[:-1], "should have 2304000 bytes"),
        (DATA + b"x", "should have 2304000 bytes"),
        (DATA[:-1] + b"x", "sha256"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, data, said):
    with pytest.raises(DownloadError, match=said):
        copy_checked(io.BytesIO(data), tmp_path / "model", RIGHT, silent, "")
    (tmp_path / "there").write_bytes(data)
    with pytest.raises(DownloadError, match=said):
        check(tmp_path / "there", RIGHT, silent, "")


def test_progress_counts_up_to_the_whole(tmp_path: Path):
    seen = []
    copy_checked(
        io.BytesIO(DATA), tmp_path / "model", RIGHT, lambda *report: seen.append(report), "unpacking"
    )
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == ("unpacking", len(DATA), len(DATA))


def test_a_file_of_another_size_is_not_the_model(home: Path):
    target = store.target_of("tiny:1m")
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA[:100])
    assert store.find("tiny:1m", Expected()) == target
    assert store.find("tiny:1m", RIGHT) is None


def test_a_model_that_is_removed_meanwhile_is_not_there(home: Path, monkeypatch):
    target = store.target_of("tiny:1m")
    target.parent.mkdir(parents=True)
    target.write_bytes(DATA)
    monkeypatch.setattr(store, "_is_whole", lambda path: path.unlink() or True)
    assert store.installed() == []
    target.write_bytes(DATA)
    assert store.find("tiny:1m", Expected()) is None


def test_a_linked_file_is_removed_without_the_cache_it_lives_in(home: Path, tmp_path: Path):
    cached = tmp_path / "cached"
    cached.write_bytes(DATA)
    target = store.target_of("tiny:1m")
    with incoming(target, silent) as folder:
        place((cached,), target, folder)
    assert target.read_bytes() == DATA
    assert store.discard("tiny:1m") == store.Removed("tiny:1m", 0, (cached,))
    assert cached.exists()
    with pytest.raises(ModelNotFoundError, match="which holds: nothing"):
        store.discard("tiny:1m")


def test_a_link_to_nothing_is_not_installed(home: Path, tmp_path: Path):
    target = store.target_of("tiny:1m")
    target.parent.mkdir(parents=True)
    target.symlink_to(tmp_path / "gone")
    assert store.installed() == []
    assert store.find("tiny:1m", Expected()) is None
    assert store.discard("tiny:1m").kept == ()
