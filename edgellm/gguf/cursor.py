"""Reading fields one after another, each checked against what is left of the file."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from edgellm.errors import FormatError

# The most of one key or name (the format's own limit of a key), and of one value of the metadata (the largest
# known, a whole tokenizer.json, has some 20 MB). A file of gigabytes has room for anything that a damaged
# length may ask for; this refuses it before it is copied.
MAX_NAME_BYTES = (1 << 16) - 1
MAX_VALUE_BYTES = 1 << 26

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in a mapped file. `field` is what a message calls the thing that is being read."""

    def __init__(self, buffer: mmap.mmap, path: Path) -> None:
        self.buffer = buffer
        self.path = path
        self.size = len(buffer)
        self.position = 0

    def error(self, field: str, offset: int, problem: str) -> FormatError:
        """The one shape that all messages about a broken file have."""
        return FormatError(f"{self.path}: {field} at byte {offset} {problem}")

    def skip(self, nbytes: int, field: str) -> int:
        """Step over `nbytes` that must be there, and return where they start."""
        start = self.position
        if nbytes > self.size - start:
            raise self.error(
                field,
                start,
                f"needs {nbytes} bytes, but the file ends after {self.size - start} "
                f"({self.size} in all); the download is incomplete, or the file is damaged",
            )
        self.position = start + nbytes
        return start

    def u32(self, field: str) -> int:
        value: int = _U32.unpack_from(self.buffer, self.skip(4, field))[0]
        return value

    def u64(self, field: str) -> int:
        value: int = _U64.unpack_from(self.buffer, self.skip(8, field))[0]
        return value

    def count(self, field: str, entry_bytes: int, max_bytes: int = MAX_VALUE_BYTES) -> int:
        """A u64 number of entries of at least `entry_bytes`, for which the file and `max_bytes` have room."""
        offset = self.position
        value = self.u64(field)
        limit = (self.size - self.position) // entry_bytes
        if value > limit:
            raise self.error(
                field,
                offset,
                f"is {value}, but only {limit} fit into the {self.size - self.position} bytes that are left; "
                "the download is incomplete, or the file is damaged",
            )
        self.bound(field, offset, value, max_bytes // entry_bytes)
        return value

    def bound(self, field: str, offset: int, value: int, limit: int) -> None:
        """Raise FormatError for a number that is larger than anybody's file needs."""
        if value > limit:
            raise self.error(field, offset, f"is {value}; at most {limit} is read; the file is damaged")

    def text_bytes(self, field: str, max_bytes: int = MAX_VALUE_BYTES) -> bytes:
        """A string as it stands in the file: a u64 length, then that many bytes."""
        length = self.count(f"length of {field}", 1, max_bytes)
        start = self.skip(length, field)
        return self.buffer[start : start + length]

    def name(self, field: str) -> str:
        """A key or a name: a string that must be UTF-8, of at most MAX_NAME_BYTES."""
        offset = self.position
        raw = self.text_bytes(field, MAX_NAME_BYTES)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.error(field, offset, f"is not UTF-8 ({error.reason}); the file is damaged") from None
