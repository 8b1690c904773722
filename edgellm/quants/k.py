"""The K types: superblocks of 256 columns, whose sub-blocks have integer scales under one or two floats."""

from __future__ import annotations

import numpy as np

from edgellm.gguf.types import TensorType
from edgellm.quants.base import F32, U8, Blocks, QuantType


class Q4_K(QuantType, type=TensorType.Q4_K):  # noqa: N801
    """x = d * scale * q - dmin * min; 8 sub-blocks of 32 columns, q of 4 bits, scale and min of 6.

    Bytes 32 i to 32 i + 31 of `qs` hold sub-block 2 i in their low nibbles and 2 i + 1 in their high ones.
    """

    block = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        return _affine(blocks, _nibble_pairs(blocks["qs"]))


class Q5_K(QuantType, type=TensorType.Q5_K):  # noqa: N801
    """As Q4_K with q of 5 bits: the fifth bit of column j of sub-block i is bit i of byte j of `qh`."""

    block = np.dtype(
        [("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)]
    )

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        qh: U8 = blocks["qh"]
        fifth = (qh[:, None, :] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)  # [n, 8, 32]
        return _affine(blocks, _nibble_pairs(blocks["qs"]) | (fifth << np.uint8(4)))


class Q6_K(QuantType, type=TensorType.Q6_K):  # noqa: N801
    """x = d * scale * (q - 32); 16 sub-blocks of 16 columns, q of 6 bits, scale a signed byte.

    Each half of 128 columns is four runs of 32: runs 0 and 1 are the low nibbles of 64 bytes of `ql`, runs 2
    and 3 the high ones; run i has its upper two bits at bit 2 i of the 32 bytes of `qh`.
    """

    block = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])

    @classmethod
    def decode(cls, blocks: Blocks) -> F32:
        n = len(blocks)
        q = np.empty((n, 2, 4, 32), np.uint8)  # [n, half, run, column]
        ql = blocks["ql"].reshape(n, 2, 2, 32)
        np.bitwise_and(ql, 15, out=q[:, :, :2])
        np.right_shift(ql, 4, out=q[:, :, 2:])
        upper = blocks["qh"].reshape(n, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]
        q |= (upper & 3) << 4
        scales: F32 = blocks["d"].astype(np.float32)[:, None] * blocks["scales"]  # [n, 16]
        codes = q.reshape(n, 16, 16).view(np.int8) - np.int8(32)
        return (scales[:, :, None] * codes).reshape(n, 256)


def _nibble_pairs(qs: U8) -> U8:
    """[n, 128] -> [n, 8, 32]: of every 32 bytes the low nibbles, then the high ones."""
    n = len(qs)
    out = np.empty((n, 4, 2, 32), np.uint8)
    quarters = qs.reshape(n, 4, 32)
    np.bitwise_and(quarters, 15, out=out[:, :, 0])
    np.right_shift(quarters, 4, out=out[:, :, 1])
    return out.reshape(n, 8, 32)


def _affine(blocks: Blocks, q: U8) -> F32:
    scale, minimum = _six_bit_scales(blocks["scales"])
    d = blocks["d"].astype(np.float32)[:, None] * scale  # [n, 8]
    m = blocks["dmin"].astype(np.float32)[:, None] * minimum
    return (d[:, :, None] * q - m[:, :, None]).reshape(len(blocks), 256)


def _six_bit_scales(packed: U8) -> tuple[U8, U8]:
    """12 bytes -> 8 scales and 8 minimums of 6 bits, uint8 [n, 8] each.

    Bytes 0-3 are scales 0-3, bytes 4-7 minimums 0-3; their upper two bits are those of scales and minimums
    4-7, whose lower four are the nibbles of bytes 8-11 (scales low, minimums high).
    """
    first, second, third = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scale = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    minimum = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    return scale, minimum
