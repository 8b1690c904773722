"""Writing GGUF files, over the writer of the `gguf` package."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import UsageError
from edgellm.gguf.types import NUMBERS, TensorType, ValueType

# A tensor is a NumPy array of a plain dtype, or (type, raw uint8 [..., row_bytes]).
Tensor = NDArray[Any] | tuple[TensorType, NDArray[np.uint8]]


def write_gguf(
    path: str | os.PathLike[str],
    architecture: str,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """Write a GGUF v3 file whole: under a temporary name, renamed when it is complete.

    Metadata values: bool, int (UINT32 where it fits, in lists INT32, else wider), float (FLOAT32), str, lists
    and NumPy arrays of these, or a pair (ValueType, scalar) where the width matters. Raises UsageError for
    any other value, for an empty list, and for a tensor whose dtype the format does not have.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        _write(partial, architecture, metadata, tensors)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, architecture: str, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    # Slow to import, and only writers need it.
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    try:
        _fill(writer, metadata, tensors)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    except (ValueError, struct.error) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path.name} cannot be written: {error}") from error
    finally:
        writer.close()


def _fill(writer: Any, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    from gguf import GGMLQuantizationType, GGUFValueType

    for key, value in metadata.items():
        kind, plain, item = _typed(key, value)
        item_type = None if item is None else GGUFValueType(item)
        writer.add_key_value(key, plain, GGUFValueType(kind), item_type)
        if key == "general.alignment":
            writer.data_alignment = plain
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            writer.add_tensor(
                name, np.ascontiguousarray(tensor[1]), raw_dtype=GGMLQuantizationType(tensor[0])
            )
        else:
            writer.add_tensor(name, np.ascontiguousarray(tensor))


def _typed(key: str, value: Any) -> tuple[ValueType, Any, ValueType | None]:
    """(type, value, element type of an array) for the writer."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], ValueType):
        return value[0], value[1], None
    if isinstance(value, np.ndarray):
        return ValueType.ARRAY, value.tolist(), _of_dtype(key, value.dtype)
    if isinstance(value, Sequence) and not isinstance(value, str):
        items = list(value)
        if not items:
            raise UsageError(
                f"metadata {key!r} is an empty list, which has no element type; leave the key out", key
            )
        return ValueType.ARRAY, items, _widest(key, items)
    return _of_scalar(key, value), value, None


def _widest(key: str, items: list[Any]) -> ValueType:
    if all(type(item) is int for item in items):
        return _of_int(key, min(items), max(items), ValueType.INT32)
    kinds = {_of_scalar(key, item) for item in items}
    if len(kinds) > 1:
        raise UsageError(
            f"metadata {key!r} mixes {sorted(kind.name for kind in kinds)}; give values of one type", key
        )
    return kinds.pop()


def _of_scalar(key: str, value: Any) -> ValueType:
    if isinstance(value, bool | np.bool_):
        return ValueType.BOOL
    if isinstance(value, int | np.integer):
        return _of_int(key, int(value), int(value), ValueType.UINT32)
    if isinstance(value, float | np.floating):
        return ValueType.FLOAT32
    if isinstance(value, str):
        return ValueType.STRING
    raise UsageError(
        f"metadata {key!r} is a {type(value).__name__}; give a number, a string, or a list of them", key
    )


def _of_int(key: str, low: int, high: int, first: ValueType) -> ValueType:
    for kind in (first, ValueType.INT32, ValueType.INT64, ValueType.UINT64):
        limits = np.iinfo(NUMBERS[kind])
        if limits.min <= low and high <= limits.max:
            return kind
    raise UsageError(f"metadata {key!r} is {low if low < 0 else high}; integers have at most 64 bits", key)


def _of_dtype(key: str, dtype: np.dtype[Any]) -> ValueType:
    name = {"bool": "BOOL"}.get(dtype.name, dtype.name.upper())
    if name not in ValueType.__members__:
        raise UsageError(f"metadata {key!r} is an array of {dtype.name}; give integers, floats or bools", key)
    return ValueType[name]
