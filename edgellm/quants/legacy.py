"""The first types of ggml: blocks of 32 columns, a scale `d`, in the `_1` types a minimum `m`.

Column j of a block is the low nibble of byte j, column j + 16 its high nibble; the `Q5` types keep the fifth
bits of all 32 columns in `qh`, column j at bit j.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.gguf.types import TensorType
from edgellm.quants.base import F32, U8, Blocks, QuantType


class Q4_0(QuantType, type=TensorType.Q4_0):  # noqa: N801
    """x = d * (q - 8), q of 4 bits."""

    block = np.dtype([("d", "<f2"), ("qs", "u1", 16)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return _scale(blocks) * (_nibbles(blocks["qs"]).view(np.int8) - np.int8(8))

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        d, q = _symmetric(values, 8)
        return _pack(cls.block, d=d, qs=_join_nibbles(q))


class Q4_1(QuantType, type=TensorType.Q4_1):  # noqa: N801
    """x = d * q + m, q of 4 bits."""

    block = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return _scale(blocks) * _nibbles(blocks["qs"]) + _scale(blocks, "m")

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        d, m, q = _with_minimum(values, 15)
        return _pack(cls.block, d=d, m=m, qs=_join_nibbles(q))


class Q5_0(QuantType, type=TensorType.Q5_0):  # noqa: N801
    """x = d * (q - 16), q of 5 bits."""

    block = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return _scale(blocks) * (_five_bits(blocks).view(np.int8) - np.int8(16))

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        d, q = _symmetric(values, 16)
        return _pack(cls.block, d=d, qh=_fifth_bits(q), qs=_join_nibbles(q))


class Q5_1(QuantType, type=TensorType.Q5_1):  # noqa: N801
    """x = d * q + m, q of 5 bits."""

    block = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return _scale(blocks) * _five_bits(blocks) + _scale(blocks, "m")

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        d, m, q = _with_minimum(values, 31)
        return _pack(cls.block, d=d, m=m, qh=_fifth_bits(q), qs=_join_nibbles(q))


class Q8_0(QuantType, type=TensorType.Q8_0):  # noqa: N801
    """x = d * q, q a signed byte."""

    block = np.dtype([("d", "<f2"), ("qs", "i1", 32)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        codes: NDArray[np.int8] = blocks["qs"]
        return _scale(blocks) * codes

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        d = np.abs(values).max(axis=1) / np.float32(127)
        scaled = values * _inverse(d)[:, None]
        # roundf: halves go away from zero. The addition is done in float64 so that it rounds nothing itself.
        q = np.copysign(np.floor(np.abs(scaled).astype(np.float64) + 0.5), scaled)
        return _pack(cls.block, d=d, qs=q.astype(np.int8))


# -- shared parts ------------------------------------------------------------------------------------


def _scale(blocks: Blocks, name: str = "d") -> F32:
    """A scale of each block, float32 [n, 1]."""
    scale: F32 = blocks[name]
    return scale.astype(np.float32)[:, None]


def _nibbles(qs: U8) -> U8:
    """Low nibbles, then high ones: [n, k] -> [n, 2 k]."""
    n, half = qs.shape
    out = np.empty((n, 2 * half), np.uint8)
    np.bitwise_and(qs, 15, out=out[:, :half])
    np.right_shift(qs, 4, out=out[:, half:])
    return out


def _five_bits(blocks: Blocks) -> U8:
    fifth = np.unpackbits(blocks["qh"], axis=1, bitorder="little")
    return _nibbles(blocks["qs"]) | (fifth << np.uint8(4))


def _join_nibbles(q: U8) -> U8:
    half = q.shape[1] // 2
    return (q[:, :half] & np.uint8(15)) | (q[:, half:] << np.uint8(4))


def _fifth_bits(q: U8) -> U8:
    return np.packbits(q >> np.uint8(4), axis=1, bitorder="little")


def _inverse(d: F32) -> F32:
    """1 / d, or 0 where that is too large: such a scale is 0 in half precision."""
    inverse = np.float32(1) / d
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


def _symmetric(values: F32, zero: int) -> tuple[F32, U8]:
    """The scale that puts the value farthest from 0 onto code 0, and codes of 0 to 2 * zero - 1."""
    farthest = np.take_along_axis(values, np.abs(values).argmax(axis=1, keepdims=True), axis=1)
    d = farthest[:, 0] / np.float32(-zero)
    return d, _codes(values * _inverse(d)[:, None] + np.float32(zero + 0.5), 2 * zero - 1)


def _with_minimum(values: F32, top: int) -> tuple[F32, F32, U8]:
    """Scale, minimum, and codes of 0 to `top` that span minimum to maximum."""
    low = values.min(axis=1)
    d = (values.max(axis=1) - low) / np.float32(top)
    codes = (values - low[:, None]) * _inverse(d)[:, None] + np.float32(0.5)
    return d, low, _codes(codes, top)


def _codes(shifted: F32, top: int) -> U8:
    return np.minimum(shifted.astype(np.int8), top).astype(np.uint8)


def _pack(block: np.dtype[Any], **fields: NDArray[Any]) -> Blocks:
    """Blocks from their fields."""
    out = np.empty(len(fields["d"]), block)
    for name, values in fields.items():
        out[name] = values
    return out
