"""Ways to be wrong, in the bytes."""

from __future__ import annotations

import struct
from random import Random

from fuzz.edits import EDGES
from fuzz.models import Image


def damaged(image: Image, rng: Random) -> Image:
    """A copy with some bytes changed, moved or lost."""
    raw, size = bytearray(image.head), image.size
    for _ in range(rng.choice([1, 1, 2, 4])):
        size += _damage(raw, image.fields, rng)
    if rng.random() < 0.1:
        size = rng.randrange(len(raw) + 1)
    return Image(bytes(raw), max(size, 0), image.fields)


def _damage(raw: bytearray, fields: list[tuple[int, int]], rng: Random) -> int:
    """One change; gives by how many bytes the file has grown."""
    if not raw:
        return 0
    how, at = rng.randrange(6), rng.randrange(len(raw))
    if how == 0:
        raw[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        raw[at] = rng.randrange(256)
    elif how <= 3 and fields:
        place, width = rng.choice(fields)
        raw[place : place + width] = struct.pack("<Q", rng.choice(EDGES) % 2**64)[:width]
    else:
        return _move(raw, at, rng)
    return 0


def _move(raw: bytearray, at: int, rng: Random) -> int:
    """A region is repeated, lost, or put elsewhere."""
    before, length = len(raw), rng.choice([1, 4, 8, 13, 24, 100])
    piece, how = raw[at : at + length], rng.randrange(3)
    if how == 0:
        raw[at:at] = piece
    elif how == 1:
        del raw[at : at + length]
    else:
        to = rng.randrange(len(raw))
        raw[to : to + len(piece)] = piece
    return len(raw) - before


def noise(rng: Random) -> Image:
    """A header, then anything."""
    head = (
        b"GGUF"
        + struct.pack("<IQQ", 3, rng.randrange(4), rng.randrange(4))
        + rng.randbytes(rng.randrange(400))
    )
    return Image(head, len(head))
