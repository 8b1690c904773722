"""Types without blocks: every value stands for itself."""

from __future__ import annotations

import numpy as np

from edgellm.gguf.types import TensorType
from edgellm.quants.base import F32, Blocks, QuantType


class F32Type(QuantType, type=TensorType.F32):
    """IEEE single precision."""

    block = np.dtype("<f4")

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return blocks.astype(np.float32)[:, None]

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        return values.astype("<f4")[:, 0]


class F16Type(QuantType, type=TensorType.F16):
    """IEEE half precision; what is too large becomes infinite."""

    block = np.dtype("<f2")

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return blocks.astype(np.float32)[:, None]

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        return values.astype("<f2")[:, 0]


class BF16Type(QuantType, type=TensorType.BF16):
    """The upper half of a single-precision float."""

    block = np.dtype("<u2")

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return (blocks.astype(np.uint32) << 16).view(np.float32)[:, None]

    @classmethod
    def encode(cls, values: F32) -> Blocks:
        bits = values[:, 0].view(np.uint32)
        nearest_even = (bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # Rounding a NaN could carry into infinity: keep its upper half, made quiet.
        quiet = (bits >> 16) | 64
        return np.where(np.isnan(values[:, 0]), quiet, nearest_even).astype("<u2")
