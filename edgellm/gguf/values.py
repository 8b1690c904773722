"""Reading metadata values. Numbers are decoded at once; strings and arrays only when they are asked for."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, UsageError
from edgellm.gguf.cursor import MAX_VALUE_BYTES, Cursor
from edgellm.gguf.strings import read_string_array
from edgellm.gguf.types import NUMBERS, ValueType

_MAX_DEPTH = 4
_MAX_NESTED = (
    1 << 16
)  # inner arrays are read at once, so their number is bounded by more than the file's size
_ARRAY_HEADER = 12  # bytes: element type u32, count u64


@dataclass(frozen=True)
class LazyText:
    """A string value that stays in the file until it is asked for."""

    raw: bytes
    where: str

    def load(self) -> str:
        try:
            return self.raw.decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.where} is not UTF-8 ({error.reason}); the file is damaged") from None


@dataclass(frozen=True)
class LazyNumbers:
    """An array of numbers that stays in the mapped file until it is asked for."""

    buffer: mmap.mmap
    offset: int
    count: int
    kind: ValueType

    def load(self) -> NDArray[Any]:
        """A read-only copy, so that the map can be closed."""
        if self.buffer.closed:
            raise UsageError("the GGUF file is closed; read its arrays before closing it")
        array = self.view().astype(np.bool_ if self.kind is ValueType.BOOL else NUMBERS[self.kind][1:])
        array.flags.writeable = False
        return array

    def view(self) -> NDArray[Any]:
        return np.frombuffer(self.buffer, NUMBERS[self.kind], self.count, self.offset)


def read_value(cursor: Cursor, field: str) -> Any:
    """Read a type id and the value behind it. Lazy values have a `load` method."""
    kind = _value_type(cursor, f"type of {field}")
    if kind is ValueType.STRING:
        where = f"{cursor.path}: {field} at byte {cursor.position}"
        return LazyText(cursor.text_bytes(field), where)
    if kind is ValueType.ARRAY:
        offset = cursor.position
        array = _array(cursor, field, depth=1)
        cursor.bound(f"number of bytes of {field}", offset, cursor.position - offset, MAX_VALUE_BYTES)
        return array
    return _number(cursor, kind, field)


def _value_type(cursor: Cursor, field: str) -> ValueType:
    offset = cursor.position
    value = cursor.u32(field)
    try:
        return ValueType(value)
    except ValueError:
        limit = max(ValueType)
        raise cursor.error(
            field, offset, f"is {value}; at most {limit} is known; the file is damaged"
        ) from None


def _number(cursor: Cursor, kind: ValueType, field: str) -> int | float | bool:
    dtype = np.dtype(NUMBERS[kind])
    offset = cursor.skip(dtype.itemsize, field)
    value: int | float = np.frombuffer(cursor.buffer, dtype, 1, offset)[0].item()
    if kind is not ValueType.BOOL:
        return value
    if value > 1:
        raise cursor.error(field, offset, f"is {value}; a bool is 0 or 1; the file is damaged")
    return bool(value)


def _array(cursor: Cursor, field: str, depth: int) -> Any:
    kind = _value_type(cursor, f"element type of {field}")
    if kind is ValueType.STRING:
        return read_string_array(cursor, cursor.count(f"count of {field}", 8), field)
    if kind is ValueType.ARRAY:
        return _nested(cursor, field, depth)
    return _numbers(cursor, kind, field)


def _numbers(cursor: Cursor, kind: ValueType, field: str) -> LazyNumbers:
    itemsize = np.dtype(NUMBERS[kind]).itemsize
    count = cursor.count(f"count of {field}", itemsize)
    array = LazyNumbers(cursor.buffer, cursor.skip(count * itemsize, field), count, kind)
    if kind is ValueType.BOOL and (bad := np.flatnonzero(array.view() > 1)).size:
        first = int(bad[0])
        value = cursor.buffer[array.offset + first]
        raise cursor.error(
            f"{field}[{first}]", array.offset + first, f"is {value}; a bool is 0 or 1; the file is damaged"
        )
    return array


def _nested(cursor: Cursor, field: str, depth: int) -> list[Any]:
    offset = cursor.position
    if depth >= _MAX_DEPTH:
        raise cursor.error(field, offset, f"nests arrays deeper than {_MAX_DEPTH}; the file is damaged")
    count = cursor.count(f"count of {field}", _ARRAY_HEADER)
    if count > _MAX_NESTED:
        raise cursor.error(
            f"count of {field}", offset, f"is {count}; at most {_MAX_NESTED} arrays in an array are read"
        )
    return [_array(cursor, f"{field}[{i}]", depth + 1) for i in range(count)]
