"""One file over HTTP: continued, never spliced, given up in a sentence."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from fake_servers import Wire, serving

from edgellm.errors import DownloadError
from edgellm.hub.checks import DiskFullError, write
from edgellm.hub.partial import partial_of, remove_partial
from edgellm.hub.source import Expected, silent
from edgellm.hub.transfer import Remote, download

DATA = random.Random(1).randbytes(300_000)
OTHER = random.Random(2).randbytes(300_000)
SUM = hashlib.sha256(DATA).hexdigest()


class Server:
    """A server of one file, whose content, ETag and status a test may change."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.data, self.etag = DATA, '"one"'
        self.statuses: list[int] = []

    def answer(self, request):
        if self.statuses:
            self.wire.asked.append("refused")
            self.wire.answer(request, self.statuses.pop(0), {}, b"")
        else:
            self.wire.send(request, self.data, {"ETag": self.etag})


@pytest.fixture
def server(no_waiting):
    server = Server()
    with serving(server.answer) as server.url:
        yield server


def fetch(server, target: Path, sha256: str | None = SUM, progress=silent) -> None:
    download(Remote(f"{server.url}/file", "file"), target, Expected(sha256), progress)


def interrupt(server, target: Path, at: int = 100_000, sha256: str | None = SUM) -> None:
    """Fetch, and have every attempt end early: what is here afterwards has `at` bytes."""
    server.wire.cuts = [at, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"broke off 5 times, at 0\.1 MiB of 0\.3 MiB"):
        fetch(server, target, sha256)
    assert partial_of(target).stat().st_size == at
    assert not target.exists()
    server.wire.asked.clear()


def test_a_file_is_fetched_and_nothing_else_stays(server, tmp_path):
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_dropped_connection_is_taken_up_where_it_broke(server, tmp_path):
    server.wire.cuts = [100_000, 50_000, 0]
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.wire.asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150000-"]


@pytest.mark.parametrize("sha256", [SUM, None])
def test_the_next_call_goes_on_and_says_from_where(server, tmp_path, sha256):
    interrupt(server, tmp_path / "a", sha256=sha256)
    seen = []
    fetch(server, tmp_path / "a", sha256, lambda *report: seen.append(report))
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.wire.asked == ["bytes=100000-"]
    assert seen[0] == ("downloading file, from 0.1 MiB on", 100_000, 300_000)
    assert ("downloading file, from 0.1 MiB on", 300_000, 300_000) in seen


@pytest.mark.parametrize("conditions", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_is_not_spliced(server, tmp_path, ranges, conditions):
    interrupt(server, tmp_path / "a", sha256=None)
    server.data, server.etag = OTHER, '"two"'
    server.wire.ranges, server.wire.conditions = ranges, conditions
    fetch(server, tmp_path / "a", None)
    assert (tmp_path / "a").read_bytes() == OTHER


def test_a_file_of_another_length_is_not_spliced(server, tmp_path):
    interrupt(server, tmp_path / "a", sha256=None)
    server.data, server.wire.conditions = OTHER[:200_000], False
    fetch(server, tmp_path / "a", None)
    assert (tmp_path / "a").read_bytes() == OTHER[:200_000]


def test_a_file_that_became_shorter_than_what_is_here_starts_afresh(server, tmp_path):
    interrupt(server, tmp_path / "a", sha256=None)
    server.data, server.wire.conditions = OTHER[:50_000], False
    fetch(server, tmp_path / "a", None)
    assert (tmp_path / "a").read_bytes() == OTHER[:50_000]


def test_a_server_without_ranges_starts_afresh(server, tmp_path):
    interrupt(server, tmp_path / "a")
    server.wire.ranges = False
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.wire.asked == ["bytes=100000-"]


def test_another_file_is_expected_now(server, tmp_path):
    interrupt(server, tmp_path / "a")
    server.data = OTHER
    fetch(server, tmp_path / "a", hashlib.sha256(OTHER).hexdigest())
    assert (tmp_path / "a").read_bytes() == OTHER
    assert server.wire.asked == [None]


def test_a_partial_file_that_was_damaged_costs_a_second_download(server, tmp_path):
    interrupt(server, tmp_path / "a")
    partial_of(tmp_path / "a").write_bytes(bytes(100_000))
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.wire.asked == ["bytes=100000-", None]


@pytest.mark.parametrize(
    "note",
    [
        *(None, b"", b"{", b"[]", b'{"colour": 1}'),
        *(
            b'{"sha256": "%s", "%s"}' % (SUM.encode(), field)
            for field in (b'total": "3', b'total": 5.5, "validator": "x')
        ),
        b'{"sha256": "%s", "validator": 5, "total": 300000}' % SUM.encode(),
    ],
)
def test_a_partial_file_of_which_nothing_is_known_starts_afresh(server, tmp_path, note):
    interrupt(server, tmp_path / "a")
    path = tmp_path / "a.part.json"
    path.unlink() if note is None else path.write_bytes(note)
    fetch(server, tmp_path / "a")
    assert server.wire.asked == [None]
    assert (tmp_path / "a").read_bytes() == DATA


def test_what_nothing_identifies_is_not_continued(server, tmp_path):
    server.etag = 'W/"weak"'
    server.wire.cuts = [100_000]
    fetch(server, tmp_path / "a", None)
    assert server.wire.asked == [None, None]


def test_the_wrong_bytes_are_refused_and_removed(server, tmp_path):
    server.data = OTHER
    with pytest.raises(DownloadError, match=f"sha256 is .*, but {SUM} was expected"):
        fetch(server, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_bytes_are_not_fetched_again_because_a_connection_dropped(server, tmp_path):
    server.data = OTHER
    server.wire.cuts = [100_000]
    with pytest.raises(DownloadError, match="sha256 is"):
        fetch(server, tmp_path / "a")
    assert server.wire.asked == [None, "bytes=100000-"]


@pytest.mark.parametrize(("ranges", "asked"), [(True, ["bytes=100000-", None]), (False, ["bytes=100000-"])])
def test_the_wrong_bytes_that_an_earlier_call_left_cost_one_more_download(server, tmp_path, ranges, asked):
    server.data = OTHER
    interrupt(server, tmp_path / "a")
    server.wire.ranges = ranges
    with pytest.raises(DownloadError, match="sha256 is"):
        fetch(server, tmp_path / "a")
    assert server.wire.asked == asked


def test_a_page_in_the_place_of_the_file_leaves_what_has_come(server, tmp_path):
    expected, remote = Expected(SUM, len(DATA)), Remote(f"{server.url}/file", "file")
    interrupt(server, tmp_path / "a")
    server.data, server.etag = b"<html>log in</html>", '"page"'
    with pytest.raises(DownloadError, match="should have 300000 bytes, but the server's has 19"):
        download(remote, tmp_path / "a", expected, silent)
    server.data, server.etag = DATA, '"one"'
    download(remote, tmp_path / "a", expected, silent)
    assert server.wire.asked == ["bytes=100000-"] * 2
    assert (tmp_path / "a").read_bytes() == DATA


def test_a_checksum_may_be_in_capitals(server, tmp_path):
    fetch(server, tmp_path / "a", SUM.upper())
    assert (tmp_path / "a").read_bytes() == DATA


def test_another_size_is_refused_before_it_comes(server, tmp_path):
    with pytest.raises(DownloadError, match="should have 5 bytes, but the server's has 300000"):
        download(Remote(server.url, "file"), tmp_path / "a", Expected(SUM, 5), silent)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(server, tmp_path):
    server.statuses = [503, 429, 500]
    fetch(server, tmp_path / "a")
    assert server.wire.asked == ["refused"] * 3 + [None]
    server.statuses = [403]
    with pytest.raises(DownloadError, match="the server answers 403 Forbidden"):
        fetch(server, tmp_path / "b")


def test_a_server_that_is_gone(server, tmp_path):
    with pytest.raises(DownloadError, match=r"broke off 5 times, at 0\.0 MiB \(Connection refused\)"):
        download(Remote("http://127.0.0.1:1/file", "file"), tmp_path / "a", Expected(), silent)


def test_a_file_that_always_changes_is_given_up(server, tmp_path, monkeypatch):
    """Each fresh start brings much, and nothing that has not been here before."""
    monkeypatch.setattr("edgellm.hub.transfer._WORTH", 50_000)
    server.wire.conditions = False
    answer, answers = server.answer, 0

    def changed(request):
        nonlocal answers
        answers += 1
        server.etag, server.wire.cuts = f'"{answers}"', [100_000] if answers < 30 else []
        answer(request)

    with serving(changed) as server.url, pytest.raises(DownloadError, match="broke off 5 times"):
        fetch(server, tmp_path / "a", None)
    assert answers == 5


def test_the_waits_grow(server, tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr("edgellm.hub.transfer.WAITS_S", (1.0, 2.0))
    monkeypatch.setattr("edgellm.hub.transfer.time.sleep", slept.append)
    server.wire.pause_s = 0
    server.statuses = [503] * 3
    with pytest.raises(DownloadError, match="broke off 3 times"):
        fetch(server, tmp_path / "a")
    assert [s for s in slept if s] == [1.0, 2.0]


def test_a_full_disk_says_what_is_missing_and_keeps_what_came(server, tmp_path, monkeypatch):
    written = 0

    def full(file, data, folder, needed):
        nonlocal written
        written += len(data)
        if written <= 100_000:
            write(file, data, folder, needed)
            return
        with Path("/dev/full").open("wb", buffering=0) as nothing_fits:
            write(nothing_fits, data, folder, needed)

    monkeypatch.setattr("edgellm.hub.transfer.write", full)
    with pytest.raises(DiskFullError) as caught:
        fetch(server, tmp_path / "a")
    kept = partial_of(tmp_path / "a").stat().st_size
    assert 0 < kept <= 100_000
    assert (caught.value.needed, caught.value.folder) == (len(DATA) - kept, tmp_path)
    monkeypatch.undo()
    fetch(server, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == DATA
    assert server.wire.asked[-1] == f"bytes={kept}-"


def test_no_byte_is_asked_for_where_there_is_no_room(server, tmp_path, monkeypatch):
    monkeypatch.setattr("edgellm.hub.checks.free_bytes", lambda folder: 1000)
    with pytest.raises(DiskFullError) as caught:
        fetch(server, tmp_path / "a")
    assert caught.value.needed == len(DATA)


def test_what_has_come_can_be_removed(server, tmp_path):
    interrupt(server, tmp_path / "a")
    assert remove_partial(tmp_path / "a") == 100_000
    assert list(tmp_path.iterdir()) == []
    assert remove_partial(tmp_path / "a") == 0


def test_the_note_says_what_the_server_said(server, tmp_path):
    interrupt(server, tmp_path / "a")
    note = json.loads((tmp_path / "a.part.json").read_bytes())
    assert note == {"validator": '"one"', "total": len(DATA), "sha256": SUM}
