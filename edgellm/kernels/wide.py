"""Panels for many tokens: a piece of one is unpacked once, to bytes and f32 scales, and stays in L1 for tile
after tile, where `panels.py` would take it apart for each. The sums are the same, bit for bit.

The smaller the tile, the more that is: with two tokens (ARM) up to 46% of the instructions go, with four
(AVX2) up to two thirds of the time. With eight (AVX-512) prompts are 6 to 8% faster with codes of 5 and 6
bits; those of 4 bits, which are only masked and shifted, are not faster then, and not unpacked.
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, device, float32
from edgellm.kernels.layout import (
    AUX_SCALE_HIGH,
    AUX_SCALE_LOW,
    AUX_START_HIGH,
    AUX_START_LOW,
    AUX_SUM,
    AUX_WORDS,
    BLOCK,
    PANEL_Q4_0,
    PANEL_Q4_1,
    PANEL_Q4_K,
    PANEL_Q5_0,
    PANEL_Q5_1,
    PANEL_Q5_K,
    PANEL_Q6_K,
    WIDE_BLOCK,
    WIDE_CODES,
)
from edgellm.simd.ops import (
    load_bytes,
    load_f16,
    load_f32,
    load_i8,
    load_u8,
    mask_bytes,
    shift_left_bytes,
    shift_right_bytes,
    splat,
    store_bytes,
    store_f32,
    to_f32,
)
from edgellm.simd.tiles import (
    begin_partial,
    dot4,
    dot4_small,
    end_partial,
    fma_scaled,
    fma_splat,
    scale_fma,
    size,
    start,
)

# -- taking apart: unpack(w, out, columns) -------------------------------------------------------------


@device
def _codes4(w, out):
    """Nibbles: columns 0-15 are the low ones, 16-31 the high ones."""
    for i in range(4):
        q = load_bytes(w + 64 * i)
        store_bytes(out + 64 * i, mask_bytes(q, 15))
        store_bytes(out + 64 * (i + 4), shift_right_bytes(q, 4))


@device
def _codes5(w, out):
    """The same after a vector of fifth bits."""
    top = load_bytes(w)
    for i in range(4):
        q = load_bytes(w + 64 + 64 * i)
        store_bytes(out + 64 * i, mask_bytes(q, 15) | mask_bytes(shift_left_bytes(top, 4), 16))
        store_bytes(out + 64 * (i + 4), shift_right_bytes(q, 4) | mask_bytes(top, 16))
        top = shift_right_bytes(top, 1)


@device
def _codes6(plane, out):
    """Two vectors of top bits, each with two of nibbles."""
    for u in range(2):
        top = load_bytes(plane + 192 * u)
        q = load_bytes(plane + 192 * u + 64)
        store_bytes(out + 128 * u, mask_bytes(q, 15) | mask_bytes(shift_left_bytes(top, 4), 48))
        store_bytes(out + 128 * u + 256, shift_right_bytes(q, 4) | mask_bytes(shift_left_bytes(top, 2), 48))
        q = load_bytes(plane + 192 * u + 128)
        store_bytes(out + 128 * u + 64, mask_bytes(q, 15) | mask_bytes(top, 48))
        store_bytes(out + 128 * u + 320, shift_right_bytes(q, 4) | mask_bytes(shift_right_bytes(top, 2), 48))


@device
def _unpack_q4_0(w, out, columns):
    for _ in range(columns // BLOCK):
        _codes4(w + 32, out)
        store_f32(out + WIDE_CODES, load_f16(w))
        w += PANEL_Q4_0
        out += WIDE_BLOCK


@device
def _unpack_q4_1(w, out, columns):
    for _ in range(columns // BLOCK):
        _codes4(w + 64, out)
        store_f32(out + WIDE_CODES, load_f16(w))
        store_f32(out + WIDE_CODES + 64, load_f16(w + 32))
        w += PANEL_Q4_1
        out += WIDE_BLOCK


@device
def _unpack_q5_0(w, out, columns):
    for _ in range(columns // BLOCK):
        _codes5(w + 32, out)
        store_f32(out + WIDE_CODES, load_f16(w))
        w += PANEL_Q5_0
        out += WIDE_BLOCK


@device
def _unpack_q5_1(w, out, columns):
    for _ in range(columns // BLOCK):
        _codes5(w + 64, out)
        store_f32(out + WIDE_CODES, load_f16(w))
        store_f32(out + WIDE_CODES + 64, load_f16(w + 32))
        w += PANEL_Q5_1
        out += WIDE_BLOCK


def _with_two_levels(codes, panel_block, block_bytes):
    @device
    def unpack(w, out, columns):
        for _ in range(columns // 256):
            d, dmin = load_f16(w), splat(float32(0.0)) - load_f16(w + 32)
            for block in range(8):
                codes(w + 320 + block * block_bytes, out)
                store_f32(out + WIDE_CODES, d * to_f32(load_u8(w + 64 + 16 * block)))
                store_f32(out + WIDE_CODES + 64, dmin * to_f32(load_u8(w + 192 + 16 * block)))
                out += WIDE_BLOCK
            w += panel_block

    return unpack


@device
def _unpack_q6_k(w, out, columns):
    for _ in range(columns // 256):
        d = load_f16(w + 256)
        for block in range(8):
            _codes6(w + 288 + block * 384, out)
            store_f32(out + WIDE_CODES, d * to_f32(load_i8(w + block * 32)))
            store_f32(out + WIDE_CODES + 64, d * to_f32(load_i8(w + block * 32 + 16)))
            out += WIDE_BLOCK
        w += PANEL_Q6_K


# -- multiplying: as in `panels.py` --------------------------------------------------------------------


@device
def _dots(low, high, w, x, nt):
    for i in range(4):
        low = dot4_small(low, load_bytes(w + 64 * i), x + 4 * nt * i)
        high = dot4_small(high, load_bytes(w + 256 + 64 * i), x + 4 * nt * (i + 4))
    return low, high


@device
def _zero(c, w, x, aux, x_stride, columns):
    nt = size(c)
    for _ in range(columns // BLOCK):
        low_start, high_start = aux + AUX_START_LOW * 4 * nt, aux + AUX_START_HIGH * 4 * nt
        low, high = _dots(begin_partial(c, low_start), begin_partial(c, high_start), w, x, nt)
        low, high = end_partial(low, low_start), end_partial(high, high_start)
        c = scale_fma(c, low, high, aux + AUX_SCALE_LOW * 4 * nt, load_f32(w + WIDE_CODES))
        w += WIDE_BLOCK
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _minimum(c, w, x, aux, x_stride, columns):
    nt = size(c)
    for _ in range(columns // BLOCK):
        low, high = _dots(begin_partial(c, 0), begin_partial(c, 0), w, x, nt)
        low, high = end_partial(low, 0), end_partial(high, 0)
        c = scale_fma(c, low, high, aux + AUX_SCALE_LOW * 4 * nt, load_f32(w + WIDE_CODES))
        c = fma_splat(c, load_f32(w + WIDE_CODES + 64), aux + AUX_SUM * 4 * nt, 4)
        w += WIDE_BLOCK
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _six_bits(c, w, x, aux, x_stride, columns):
    nt = size(c)
    for _ in range(columns // BLOCK):
        low, high = start(c, aux + AUX_START_LOW * 4 * nt), start(c, aux + AUX_START_HIGH * 4 * nt)
        for i in range(4):
            low = dot4(low, load_bytes(w + 64 * i), x + 4 * nt * i)
            high = dot4(high, load_bytes(w + 256 + 64 * i), x + 4 * nt * (i + 4))
        c = fma_scaled(c, low, aux + AUX_SCALE_LOW * 4 * nt, load_f32(w + WIDE_CODES))
        c = fma_scaled(c, high, aux + AUX_SCALE_HIGH * 4 * nt, load_f32(w + WIDE_CODES + 64))
        w += WIDE_BLOCK
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


# By form (layout.WIDE_FORMS): how a panel is taken apart, and how what came of it is multiplied.
WIDE = {
    "q4_0": (_unpack_q4_0, _zero),
    "q4_1": (_unpack_q4_1, _minimum),
    "q5_0": (_unpack_q5_0, _zero),
    "q5_1": (_unpack_q5_1, _minimum),
    "q4_k": (_with_two_levels(_codes4, PANEL_Q4_K, 256), _minimum),
    "q5_k": (_with_two_levels(_codes5, PANEL_Q5_K, 320), _minimum),
    "q6_k": (_unpack_q6_k, _six_bits),
}
if LARGEST_TILE >= 8:
    WIDE = {form: pair for form, pair in WIDE.items() if form.startswith(("q5", "q6"))}
