"""The store: names and paths, whole files only, cleaning up."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path

import pytest

from edgellm.errors import DownloadError, ModelNotFoundError
from edgellm.hub import store
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
    with contextlib.suppress(ConnectionError), store.incoming(target) as folder:
        (folder / "model.gguf").write_bytes(DATA)
        assert store.installed() == []
        raise ConnectionError("the download broke off")
    assert store.installed() == []
    assert list(target.parent.glob("*.part")) == []
    with store.incoming(target) as folder:
        store.copy_checked(io.BytesIO(DATA), folder / "model", RIGHT, silent, "")
        store.place(folder / "model", target, folder)
    assert store.installed() == [store.Installed("tiny:1m", target, len(DATA))]
    assert target.read_bytes() == DATA


def test_what_a_killed_process_left_is_cleaned_up(home: Path):
    target = store.target_of("tiny:1m")
    stale = target.parent / ".1m.gguf.abc.part"
    other = target.parent / ".2m.gguf.abc.part"
    for folder in (stale, other):
        folder.mkdir(parents=True)
        (folder / "model").write_bytes(b"half")
    with store.incoming(target):
        assert not stale.exists()
    assert other.exists(), "another model's download may be alive"
    assert store.installed() == []


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
        store.copy_checked(io.BytesIO(data), tmp_path / "model", RIGHT, silent, "")
    (tmp_path / "there").write_bytes(data)
    with pytest.raises(DownloadError, match=said):
        store.check(tmp_path / "there", RIGHT, silent, "")


def test_progress_counts_up_to_the_whole(tmp_path: Path):
    seen = []
    store.copy_checked(
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


def test_a_linked_file_is_removed_without_the_cache_it_lives_in(home: Path, tmp_path: Path):
    cached = tmp_path / "cached"
    cached.write_bytes(DATA)
    target = store.target_of("tiny:1m")
    with store.incoming(target) as folder:
        store.place(cached, target, folder)
    assert target.read_bytes() == DATA
    assert store.discard("tiny:1m") == store.Removed("tiny:1m", 0, cached)
    assert cached.exists()
    with pytest.raises(ModelNotFoundError, match="which holds: nothing"):
        store.discard("tiny:1m")


def test_a_link_to_nothing_is_not_installed(home: Path, tmp_path: Path):
    target = store.target_of("tiny:1m")
    target.parent.mkdir(parents=True)
    target.symlink_to(tmp_path / "gone")
    assert store.installed() == []
    assert store.find("tiny:1m", Expected()) is None
    assert store.discard("tiny:1m").kept is None
