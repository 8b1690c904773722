"""Arrays of strings, found quickly and decoded late.

A vocabulary is 150,000 strings of a few bytes, each behind a u64 length, so that where one starts is known
only after the one before. This is where the time of opening a file goes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, UsageError
from edgellm.gguf.cursor import Cursor

_PREFIX = 8  # bytes of a length
_CHUNK = 4096
_U64 = struct.Struct("<Q")


class StringArray(Sequence[str]):
    """A sequence of strings that stay in the mapped file until they are asked for.

    Raises FormatError for a string that is not UTF-8, UsageError once the file is closed.
    """

    def __init__(self, cursor: Cursor, offsets: NDArray[np.int64], field: str) -> None:
        self._buffer = cursor.buffer
        self._offsets = offsets  # [count + 1], of the length prefixes; the last one is where the array ends
        self._where = f"{cursor.path}: {field}"

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self._where} has {len(self)} strings; there is no number {index}")
        return self._decode(position)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def __repr__(self) -> str:
        return f"StringArray({len(self)} strings)"

    def tolist(self) -> list[str]:
        """All of them, decoded at once."""
        blob = self._joined()
        # Splitting needs a separator that no string holds; nearly always zero is one.
        if len(self) == 0 or blob.count(0) != len(self) - 1:
            return [self._decode(i) for i in range(len(self))]
        try:
            return blob.decode().split("\0")
        except UnicodeDecodeError:
            return [self._decode(i) for i in range(len(self))]

    def _joined(self) -> bytes:
        """The strings' bytes with a zero byte between each two."""
        if len(self) == 0:
            return b""
        start, end = int(self._offsets[0]), int(self._offsets[-1])
        data = np.frombuffer(bytearray(_slice(self._buffer, start, end)), np.uint8)
        prefixes = self._offsets[:-1] - start
        kept = np.ones(len(data), np.bool_)
        for k in range(_PREFIX - 1):
            kept[prefixes + k] = False
        data[prefixes + (_PREFIX - 1)] = 0
        return data[kept].tobytes()[1:]

    def _decode(self, index: int) -> str:
        start, end = int(self._offsets[index]) + _PREFIX, int(self._offsets[index + 1])
        try:
            return _slice(self._buffer, start, end).decode()
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self._where}[{index}] at byte {start} is not UTF-8 ({error.reason}); the file is damaged"
            ) from None


def read_string_array(cursor: Cursor, count: int, field: str) -> StringArray:
    """Step over `count` strings, remembering where each stands; the file has room for that many."""
    offsets = np.empty(count + 1, np.int64)
    offsets[0] = cursor.position
    data = np.frombuffer(cursor.buffer, np.uint8)
    for low in range(0, count, _CHUNK):
        high = min(low + _CHUNK, count)
        start = int(offsets[low])
        ends = _hop_short(cursor.buffer, data, start, high - low)
        offsets[low + 1 : high + 1] = _hop(cursor, start, low, high, field) if ends is None else ends
    cursor.position = int(offsets[-1])
    return StringArray(cursor, offsets, field)


def _hop_short(
    buffer: mmap.mmap, data: NDArray[np.uint8], start: int, count: int
) -> NDArray[np.int64] | None:
    """Where each of `count` strings ends, if all are shorter than 256 bytes and inside the file; else None.

    Looking at a length's lowest byte alone is a third faster than unpacking it; the other seven are looked at
    afterwards, all at once.
    """
    try:
        ends = np.fromiter(_low_byte_hops(buffer, start, count), np.int64, count)
        high_bytes = np.lib.stride_tricks.sliding_window_view(data, _PREFIX - 1)
        starts = np.concatenate(([start], ends[:-1]))
        return None if ends[-1] > len(data) or high_bytes[starts + 1].any() else ends
    except IndexError:
        return None


def _low_byte_hops(buffer: mmap.mmap, position: int, count: int) -> Iterator[int]:
    for _ in range(count):
        position += buffer[position] + _PREFIX
        yield position


def _hop(cursor: Cursor, start: int, low: int, high: int, field: str) -> list[int]:
    """Where the strings `low` to `high` end, each length checked as it is read."""
    ends = []
    cursor.position = start
    for i in range(low, high):
        if cursor.size - cursor.position < _PREFIX:
            cursor.skip(_PREFIX, f"length of {field}[{i}]")
        end = cursor.position + _PREFIX + _U64.unpack_from(cursor.buffer, cursor.position)[0]
        if end > cursor.size:
            cursor.count(f"length of {field}[{i}]", 1)
        cursor.position = end
        ends.append(end)
    return ends


def _slice(buffer: mmap.mmap, start: int, end: int) -> bytes:
    if buffer.closed:
        raise UsageError("the GGUF file is closed; read its strings before closing it")
    return buffer[start:end]
