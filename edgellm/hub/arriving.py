"""The beginning of a model that is still on its way: what has come of its first file."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path

from edgellm.hub.partial import note_of
from edgellm.hub.source import Head

_MOST = 32 << 20  # bytes; metadata, which stand first, seldom have more than ten million
_ZIP = struct.Struct("<4s2xHH8xLLHH")  # PKWARE's APPNOTE, 4.3.7: magic, flags, method, sizes, and lengths
_STREAMED = 1 << 3  # a flag: the sizes follow the member
_STORED, _DEFLATED = 0, 8


def head_of(partial: Path) -> Head | None:
    """What is in a partial file; None if there is none, or before the size of the whole is known."""
    known = note_of(partial)
    if known is None or known.total is None:
        return None
    with suppress(OSError), partial.open("rb") as file:
        return Head(file.read(_MOST), known.total)
    return None


def head_of_member(partial: Path, member: str) -> Head | None:
    """What is in the part of a ZIP archive of one of its members; None if that is nothing yet."""
    with suppress(OSError, zlib.error), partial.open("rb") as file:
        while len(raw := file.read(_ZIP.size)) == _ZIP.size:
            magic, flags, method, packed, size, name_bytes, extra_bytes = _ZIP.unpack(raw)
            if magic != b"PK\3\4" or flags & _STREAMED or method not in (_STORED, _DEFLATED):
                return None
            name = file.read(name_bytes)
            file.seek(extra_bytes, 1)
            if name == member.encode():
                data = file.read(min(packed, _MOST))
                return Head(data if method == _STORED else _inflated(data), size)
            file.seek(packed, 1)
    return None


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, _MOST)
