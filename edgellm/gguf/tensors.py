"""The tensor table: names, shapes, types and extents, proven to lie inside the file before use."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from edgellm.errors import UnsupportedError, shown
from edgellm.gguf.cursor import Cursor
from edgellm.gguf.types import TensorType

MIN_ENTRY_BYTES = 24  # name length, dimension count, type, offset
_MAX_DIMS = 4
_MAX_FILE_BYTES = 1 << 48  # more is damage, not a download that stopped


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file. `shape` is in NumPy's order, rows first; `offset` is absolute in the file."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the last dimension."""
        return (self.shape[-1] if self.shape else 1) // self.type.block_size * self.type.type_size


def read_tensor_info(cursor: Cursor, index: int, alignment: int) -> TensorInfo:
    """Read one entry of the table; its offset stays relative to the start of the data."""
    name = cursor.name(f"name of tensor {index}")
    field = f"tensor {shown(name)}"
    shape = _shape(cursor, field)
    type_ = _type(cursor, field)
    row = shape[-1] if shape else 1
    if row % type_.block_size:
        raise cursor.error(
            f"first dimension of {field}",
            cursor.position,
            f"is {row}; type {type_.name} needs a multiple of {type_.block_size}; the file is damaged",
        )
    at = cursor.position
    offset = cursor.u64(f"offset of {field}")
    if offset % alignment:
        raise cursor.error(
            f"offset of {field}", at, f"is {offset}; the alignment is {alignment}; the file is damaged"
        )
    # Python's integers do not wrap, whatever the dimensions say.
    return TensorInfo(name, shape, type_, offset, math.prod(shape) // type_.block_size * type_.type_size)


def _shape(cursor: Cursor, field: str) -> tuple[int, ...]:
    at = cursor.position
    count = cursor.u32(f"dimension count of {field}")
    if count > _MAX_DIMS:
        raise cursor.error(
            f"dimension count of {field}",
            at,
            f"is {count}; at most {_MAX_DIMS} is possible; the file is damaged",
        )
    dims = []
    for i in range(count):
        at = cursor.position
        dims.append(cursor.u64(f"dimension {i} of {field}"))
        if not 0 < dims[-1] < 1 << 63:
            raise cursor.error(
                f"dimension {i} of {field}",
                at,
                f"is {dims[-1]}; it must be from 1 to 2^63 - 1; the file is damaged",
            )
    return tuple(reversed(dims))


def _type(cursor: Cursor, field: str) -> TensorType:
    at = cursor.position
    value = cursor.u32(f"type of {field}")
    try:
        type_ = TensorType(value)
    except ValueError:
        known = max(t for t in TensorType if t.stored)
        raise cursor.error(
            f"type of {field}",
            at,
            f"is {value}, which nobody knows (ggml's end at {known}); the file is damaged, or too new",
        ) from None
    if not type_.stored:
        raise UnsupportedError(
            f"{cursor.path}: {field} has type {type_.name} ({value}), which {type_.refusal()}"
        )
    return type_


def check_extents(cursor: Cursor, tensors: Iterable[TensorInfo], data_start: int, alignment: int) -> None:
    """Raise FormatError unless every tensor (absolute offset) is in the file and none overlaps another."""
    ordered = sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes))
    previous: TensorInfo | None = None
    for tensor in ordered:
        if previous is not None and tensor.offset < previous.offset + previous.nbytes:
            raise cursor.error(
                f"tensor {shown(tensor.name)}",
                tensor.offset,
                f"overlaps tensor {shown(previous.name)}, which ends at byte "
                f"{previous.offset + previous.nbytes}; "
                "the file is damaged",
            )
        previous = tensor
    if previous is not None and previous.offset + previous.nbytes > cursor.size:
        _raise_outside(cursor, ordered, data_start, alignment)


def _raise_outside(cursor: Cursor, ordered: list[TensorInfo], data_start: int, alignment: int) -> None:
    first = next(tensor for tensor in ordered if tensor.offset + tensor.nbytes > cursor.size)
    end = ordered[-1].offset + ordered[-1].nbytes
    field = f"tensor {shown(first.name)}"
    # Tensors that stand one behind another are what a writer wrote: then it is the file that is too short.
    whole = data_start + sum(-(-tensor.nbytes // alignment) * alignment for tensor in ordered)
    if end <= min(whole, _MAX_FILE_BYTES):
        raise cursor.error(
            field,
            first.offset,
            f"lies beyond the file's end: the file has {cursor.size} bytes and should have {end}, "
            f"{end - cursor.size} bytes are missing; the download is incomplete, fetch it again",
        )
    raise cursor.error(
        field, first.offset, f"has {first.nbytes} bytes; the file ends at {cursor.size}; the file is damaged"
    )
