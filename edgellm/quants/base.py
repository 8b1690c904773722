"""The base of all quant types, and the registry that they enter by being defined."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import UnsupportedError, UsageError
from edgellm.gguf.types import TensorType

Blocks = NDArray[Any]  # structured [n]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

_REGISTRY: dict[TensorType, type[QuantType]] = {}


def get(type: TensorType) -> type[QuantType]:  # noqa: A002
    """The class of a tensor type. Raises UnsupportedError for a type that edgellm cannot compute with."""
    if type not in _REGISTRY:
        names = ", ".join(t.name for t in supported())
        raise UnsupportedError(f"tensor type {TensorType(type).name} is not supported; supported are {names}")
    return _REGISTRY[type]


def supported() -> list[TensorType]:
    """Every type that has a class, in the order of their ids."""
    return sorted(_REGISTRY)


class QuantType:
    """A tensor type: rows of blocks, each `block_size` columns in `type_size` bytes laid out as `block`."""

    type: ClassVar[TensorType]
    block: ClassVar[np.dtype[Any]]
    block_size: ClassVar[int]
    type_size: ClassVar[int]
    can_quantize: ClassVar[bool]

    def __init_subclass__(cls, type: TensorType) -> None:  # noqa: A002
        assert cls.block.itemsize == type.type_size, (
            f"{type.name}: {cls.block.itemsize} bytes, not {type.type_size}"
        )
        cls.type, cls.block_size, cls.type_size = type, type.block_size, type.type_size
        cls.can_quantize = "encode" in cls.__dict__
        _REGISTRY[type] = cls

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        """Structured [n] -> float32 [n, block_size]."""
        raise NotImplementedError

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        """Float32 [n, block_size] -> structured [n], rounded as llama.cpp's reference does."""
        raise UnsupportedError(f"edgellm cannot quantize to {cls.type.name}; use Q8_0 or Q4_0")

    @classmethod
    def row_bytes(cls, cols: int) -> int:
        """Bytes of a row of `cols` columns. Raises UsageError unless they fill whole blocks."""
        if cols % cls.block_size:
            raise UsageError(
                f"{cls.type.name} needs rows of a multiple of {cls.block_size} columns; these have {cols}"
            )
        return cols // cls.block_size * cls.type_size

    @classmethod
    def dequantize(cls, raw: U8) -> F32:
        """Uint8 [..., row_bytes] -> float32 [..., cols]. Raises UsageError unless rows are whole blocks."""
        raw = np.ascontiguousarray(raw)
        if raw.dtype != np.uint8 or raw.ndim == 0 or raw.shape[-1] % cls.type_size:
            raise UsageError(
                f"{cls.type.name} rows are uint8 and a multiple of {cls.type_size} bytes; "
                f"these are {raw.dtype} {list(raw.shape)}"
            )
        cols = raw.shape[-1] // cls.type_size * cls.block_size
        return cls.decode(raw.reshape(-1).view(cls.block)).reshape(*raw.shape[:-1], cols)

    @classmethod
    def quantize(cls, values: F32) -> U8:
        """Float32 [..., cols] -> uint8 [..., row_bytes].

        The bytes are those of llama.cpp's reference quantizer. Raises UnsupportedError where only decoding is
        known, UsageError unless rows are whole blocks, and for NaN or infinity where blocks share a scale.
        """
        values = np.ascontiguousarray(values, np.float32)
        if values.ndim == 0:
            raise UsageError(f"{cls.type.name} quantizes rows; this is a single number")
        nbytes = cls.row_bytes(values.shape[-1])
        if cls.block_size > 1 and not np.isfinite(values).all():
            raise UsageError(f"{cls.type.name} cannot hold NaN or infinity; keep this tensor in F32 or BF16")
        # A scale too large for half precision becomes infinite, as in the reference.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            blocks = cls.encode(values.reshape(-1, cls.block_size))
        return blocks.view(np.uint8).reshape(*values.shape[:-1], nbytes)
