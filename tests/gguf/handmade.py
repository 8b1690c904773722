"""GGUF files made byte by byte, so that any byte of one can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from edgellm.gguf import ValueType


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return u64(len(raw)) + raw


def pair(key: str | bytes, kind: int, value: bytes) -> bytes:
    return text(key) + u32(kind) + value


def array(kind: int, count: int, items: bytes) -> bytes:
    return u32(kind) + u64(count) + items


def tensor(name: str | bytes, dims: list[int], kind: int, offset: int, num_dims: int | None = None) -> bytes:
    """An entry of the tensor table; `dims` in the file's order, rows last."""
    shape = b"".join(u64(dim) for dim in dims)
    return text(name) + u32(len(dims) if num_dims is None else num_dims) + shape + u32(kind) + u64(offset)


@dataclass
class Parts:
    """A file in parts: change one, then ask for the `bytes`."""

    pairs: list[bytes] = field(
        default_factory=lambda: [pair("general.architecture", ValueType.STRING, text("test"))]
    )
    tensors: list[bytes] = field(default_factory=list)
    data: bytes = b""
    magic: bytes = b"GGUF"
    version: bytes = u32(3)
    num_tensors: int | None = None
    num_pairs: int | None = None
    alignment: int = 32

    def bytes(self) -> bytes:
        num_tensors = len(self.tensors) if self.num_tensors is None else self.num_tensors
        num_pairs = len(self.pairs) if self.num_pairs is None else self.num_pairs
        head = self.magic + self.version + u64(num_tensors) + u64(num_pairs)
        head += b"".join(self.pairs) + b"".join(self.tensors)
        return head + bytes(-len(head) % self.alignment) + self.data


def sound() -> Parts:
    """Two tensors of F32 and one of Q4_0, with a pair of every kind."""
    parts = Parts()
    parts.pairs += [
        pair("test.block_count", ValueType.UINT32, u32(2)),
        pair("test.bool", ValueType.BOOL, b"\x01"),
        pair("test.ints", ValueType.ARRAY, array(ValueType.INT32, 3, struct.pack("<3i", -1, 0, 1))),
        pair("test.bools", ValueType.ARRAY, array(ValueType.BOOL, 2, b"\x01\x00")),
        pair("test.strings", ValueType.ARRAY, array(ValueType.STRING, 3, text("a") + text("") + text("bé"))),
        pair(
            "test.nested",
            ValueType.ARRAY,
            array(
                ValueType.ARRAY,
                2,
                array(ValueType.UINT8, 2, b"\x07\x08") + array(ValueType.STRING, 1, text("x")),
            ),
        ),
    ]
    parts.tensors = [
        tensor("a", [4, 2], 0, 0),
        tensor("b", [32, 1], 2, 32),
        tensor("c", [8], 0, 64),
    ]
    parts.data = bytes(range(96))
    return parts
