"""Pieces of panels, taken apart for many tiles (`wide.py`): codes as bytes, then the f32 of each row.

Where an instruction multiplies two rows by two tokens (`simd/interleaved.py`), pieces are unpacked in its
order: 8 columns of a row side by side, and twice what is one number a row. Bytes are unpacked so, too.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4, codes5, codes6, scale_of_second6
from edgellm.kernels.jit import MATRIX_PRODUCTS, device, float32
from edgellm.kernels.layout import (
    BLOCK,
    PANEL_Q4_0,
    PANEL_Q4_1,
    PANEL_Q4_K,
    PANEL_Q5_0,
    PANEL_Q5_1,
    PANEL_Q5_K,
    PANEL_Q6_K,
    PANEL_Q8_0,
    WIDE_CODES,
)
from edgellm.simd.arithmetic import shift_right_bytes, splat, to_f32
from edgellm.simd.interleaved import store_alternating
from edgellm.simd.ops import load_bytes, load_f16, load_i8, load_u8, store_bytes, store_f32

ROWS_BYTES = 128 if MATRIX_PRODUCTS else 64  # of an f32 for each row
BLOCK_BYTES = WIDE_CODES + 2 * ROWS_BYTES


@device
def _store_words(out, first, second):
    """Two vectors of codes that follow each other."""
    if MATRIX_PRODUCTS:
        store_alternating(out, first, second)
    else:
        store_bytes(out, first)
        store_bytes(out + 64, second)


@device
def _store_rows(out, number, rows):
    """The f32 of each row, after the codes."""
    if MATRIX_PRODUCTS:
        store_alternating(out + WIDE_CODES + ROWS_BYTES * number, rows, rows)
    else:
        store_f32(out + WIDE_CODES + ROWS_BYTES * number, rows)


@device
def _codes4(w, out):
    """Nibbles."""
    for i in range(0, 4, 2):
        low, high = codes4(load_bytes(w + 64 * i))
        next_low, next_high = codes4(load_bytes(w + 64 * (i + 1)))
        _store_words(out + 64 * i, low, next_low)
        _store_words(out + 64 * (i + 4), high, next_high)


@device
def _codes5(w, out):
    """The same after a vector of fifth bits."""
    top = load_bytes(w)
    for i in range(0, 4, 2):
        low, high = codes5(load_bytes(w + 64 * (i + 1)), top)
        top = shift_right_bytes(top, 1)
        next_low, next_high = codes5(load_bytes(w + 64 * (i + 2)), top)
        top = shift_right_bytes(top, 1)
        _store_words(out + 64 * i, low, next_low)
        _store_words(out + 64 * (i + 4), high, next_high)


@device
def _codes6(plane, out):
    """Two vectors of pairs of bits, each with two of nibbles."""
    for u in range(2):
        pairs = load_bytes(plane + 192 * u)
        low, high = codes6(load_bytes(plane + 192 * u + 64), pairs)
        next_low, next_high = codes6(load_bytes(plane + 192 * u + 128), shift_right_bytes(pairs, 2))
        _store_words(out + 128 * u, low, next_low)
        _store_words(out + 128 * u + 256, high, next_high)


@device
def _codes8(w, out):
    """Bytes."""
    for i in range(0, 8, 2):
        _store_words(out + 64 * i, load_bytes(w + 64 * i), load_bytes(w + 64 * (i + 1)))


def _with_one_level(codes, panel_block, minimum):
    @device
    def unpack(w, out, columns):
        for _ in range(columns // BLOCK):
            codes(w + (64 if minimum else 32), out)
            _store_rows(out, 0, load_f16(w))
            if minimum:
                _store_rows(out, 1, load_f16(w + 32))
            w += panel_block
            out += BLOCK_BYTES

    return unpack


def _with_two_levels(codes, panel_block, block_bytes):
    @device
    def unpack(w, out, columns):
        for _ in range(columns // 256):
            d, dmin = load_f16(w), splat(float32(0.0)) - load_f16(w + 32)
            for block in range(8):
                codes(w + 320 + block * block_bytes, out)
                _store_rows(out, 0, d * to_f32(load_u8(w + 64 + 16 * block)))
                _store_rows(out, 1, dmin * to_f32(load_u8(w + 192 + 16 * block)))
                out += BLOCK_BYTES
            w += panel_block

    return unpack


@device
def _unpack_q6_k(w, out, columns):
    for _ in range(columns // 256):
        d = load_f16(w + 256)
        d_high = scale_of_second6(d)
        for block in range(8):
            _codes6(w + 288 + block * 384, out)
            _store_rows(out, 0, d * to_f32(load_i8(w + block * 32)))
            _store_rows(out, 1, d_high * to_f32(load_i8(w + block * 32 + 16)))
            out += BLOCK_BYTES
        w += PANEL_Q6_K


UNPACK = {  # by form: unpack(w, out, columns)
    "q4_0": _with_one_level(_codes4, PANEL_Q4_0, False),
    "q4_1": _with_one_level(_codes4, PANEL_Q4_1, True),
    "q5_0": _with_one_level(_codes5, PANEL_Q5_0, False),
    "q5_1": _with_one_level(_codes5, PANEL_Q5_1, True),
    "q8_0": _with_one_level(_codes8, PANEL_Q8_0, False),
    "q4_k": _with_two_levels(_codes4, PANEL_Q4_K, 256),
    "q5_k": _with_two_levels(_codes5, PANEL_Q5_K, 320),
    "q6_k": _unpack_q6_k,
}
