"""Split sets, from a repository to an open model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import DownloadError, FormatError, ModelNotFoundError
from edgellm.gguf import open_gguf, write_gguf
from edgellm.hub import file_bytes, installed, pull, remove, resolve
from edgellm.hub.entries import read_catalogue
from edgellm.hub.sets import all_files, part_of
from edgellm.hub.store import target_of

NAME = "hf.co/user/repo:Q8_0"


def write_set(folder: Path, count: int = 3) -> dict[str, bytes]:
    """The files of a set that opens, by their names in a repository."""
    files = {}
    for i in range(count):
        path = folder / f"m-Q8_0-{i + 1:05}-of-{count:05}.gguf"
        metadata = {"split.no": i, "split.count": count, "split.tensors.count": count}
        write_gguf(path, "llama", metadata, {f"t{i}": np.full((4, 1000 * (i + 1)), i, np.float32)})
        files[f"Q8_0/{path.name}"] = path.read_bytes()
    return files


@pytest.fixture
def split_repo(home, fake_hub, tmp_path, no_waiting):
    folder = tmp_path / "made"
    folder.mkdir()
    fake_hub.repos["user/repo"] = {"README.md": b"#", **write_set(folder)}
    return fake_hub


def bytes_of(hub) -> int:
    return sum(len(data) for name, data in hub.repos["user/repo"].items() if name.endswith(".gguf"))


def test_a_set_is_pulled_whole_opened_listed_and_removed(split_repo, tmp_path):
    seen = []
    path = resolve(NAME, lambda *report: seen.append(report))
    assert path.name == "Q8_0-00001-of-00003.gguf"
    with open_gguf(path) as file:
        assert file.file_bytes == bytes_of(split_repo)
        for i in range(3):
            assert (file.data(f"t{i}").view(np.float32) == i).all()
    (model,) = installed()
    assert (model.name, model.path, model.file_bytes) == (NAME, path, bytes_of(split_repo))
    assert file_bytes(path) == bytes_of(split_repo)
    described = {what for what, _, _ in seen}
    assert {f"downloading m-Q8_0-0000{i}-of-00003.gguf" for i in (1, 2, 3)} <= described

    split_repo.gets.clear()
    assert resolve(NAME) == pull(NAME) == path
    assert split_repo.gets == []

    removed = remove(NAME)
    assert len(removed.kept) == 3
    assert installed() == []
    assert list(path.parent.iterdir()) == []
    assert all(kept.is_relative_to(tmp_path / "hub-cache") for kept in removed.kept)


def test_an_interrupted_set_goes_on_in_the_file_that_broke_off(split_repo):
    sizes = [len(data) for name, data in split_repo.repos["user/repo"].items() if name.endswith(".gguf")]
    split_repo.wire.cuts = [sizes[0], 20_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"broke off 5 times.*`edgellm pull hf.co/user/repo:Q8_0`"):
        pull(NAME)
    assert installed() == []
    split_repo.wire.asked.clear()
    with open_gguf(pull(NAME)) as file:
        assert len(file.tensors) == 3
    assert split_repo.wire.asked == ["bytes=20000-", None]


def test_a_file_of_a_set_with_the_wrong_bytes_is_refused(split_repo):
    files = split_repo.repos["user/repo"]
    split_repo.wrong_bytes = bytes(len(files["Q8_0/m-Q8_0-00001-of-00003.gguf"]))
    with pytest.raises(DownloadError, match="sha256"):
        pull(NAME)
    assert installed() == []


def test_a_set_that_is_not_whole_names_what_is_missing(split_repo):
    del split_repo.repos["user/repo"]["Q8_0/m-Q8_0-00002-of-00003.gguf"]
    with pytest.raises(ModelNotFoundError, match=r"2 of the 3 .* m-Q8_0-00002-of-00003\.gguf"):
        pull(NAME)
    assert list(target_of(NAME).parent.iterdir()) == []


def test_there_has_to_be_room_for_all_of_it(split_repo, monkeypatch):
    room = bytes_of(split_repo) - 1
    monkeypatch.setattr("edgellm.hub.checks.free_bytes", lambda folder: room)
    with pytest.raises(DownloadError, match="disk is full"):
        pull(NAME)
    assert split_repo.wire.asked == []


def test_the_catalogue_may_name_the_first_file_of_a_set(split_repo, use_catalogue):
    use_catalogue(
        """
        [models."split:3"]
        description = "d"
        license = "l"
        parameters = "1M"
        quant = "Q8_0"
        sources = [
            { kind = "huggingface", repo = "user/repo", file = "Q8_0/m-Q8_0-00001-of-00003.gguf" },
        ]
        """
    )
    path = pull("split:3")
    assert [file.name for file in all_files(path)] == [f"3-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    assert [model.name for model in installed()] == ["split:3"]
    with open_gguf(path) as file:
        assert len(file.tensors) == 3


def test_a_set_in_the_catalogue_has_no_checksum_of_its_own(tmp_path):
    path = tmp_path / "catalog.toml"
    fields = {key: json.dumps("x") for key in ("description", "license", "parameters", "quant")}
    fields["sha256"] = json.dumps("0" * 64)
    fields["sources"] = '[{ kind = "huggingface", repo = "u/r", file = "m-00001-of-00002.gguf" }]'
    path.write_text('[models."a:b"]\n' + "\n".join(f"{key} = {value}" for key, value in fields.items()))
    with pytest.raises(FormatError, match="split set"):
        read_catalogue(path)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("m-00001-of-00003.gguf", ("m", 1, 3)),
        ("a-b-00010-of-00010.GGUF", ("a-b", 10, 10)),
        ("m-00004-of-00003.gguf", None),
        ("m-00000-of-00003.gguf", None),
        ("m-1-of-3.gguf", None),
        ("m.gguf", None),
    ],
)
def test_a_name_tells_which_file_of_a_set_it_is(name, part):
    found = part_of(name)
    assert (found and (found.stem, found.number, found.count)) == part
