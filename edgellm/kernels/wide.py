"""Panels for many tokens: a piece of one is unpacked once, to bytes and f32 scales, and stays in L1 for tile
after tile, where `panels.py` would take it apart for each. The sums are the same, bit for bit.

The smaller the tile, the more that is: with two tokens (ARM) up to 46% of the instructions go, with four
(AVX2) up to two thirds of the time. With eight (AVX-512) prompts are 6 to 8% faster with codes of 5 and 6
bits; those of 4 bits, which are only masked and shifted, are not faster then, and not unpacked.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4, codes5, codes6, scale_of_second6
from edgellm.kernels.jit import LARGEST_TILE, device, float32
from edgellm.kernels.layout import (
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
from edgellm.kernels.panels import (
    add_high,
    add_low,
    add_minimum,
    add_nibbles,
    add_scaled,
    large_sums_less_zero,
    sums,
    sums_less_zero,
)
from edgellm.simd.dots import dot4, dot4_small
from edgellm.simd.ops import (
    load_bytes,
    load_f16,
    load_f32,
    load_i8,
    load_u8,
    shift_right_bytes,
    splat,
    store_bytes,
    store_f32,
    to_f32,
)
from edgellm.simd.tiles import size

# -- taking apart: unpack(w, out, columns) -------------------------------------------------------------


@device
def _codes4(w, out):
    """Nibbles."""
    for i in range(4):
        low, high = codes4(load_bytes(w + 64 * i))
        store_bytes(out + 64 * i, low)
        store_bytes(out + 64 * (i + 4), high)


@device
def _codes5(w, out):
    """The same after a vector of fifth bits."""
    top = load_bytes(w)
    for i in range(4):
        low, high = codes5(load_bytes(w + 64 + 64 * i), top)
        store_bytes(out + 64 * i, low)
        store_bytes(out + 64 * (i + 4), high)
        top = shift_right_bytes(top, 1)


@device
def _codes6(plane, out):
    """Two vectors of pairs of bits, each with two of nibbles."""
    for u in range(2):
        pairs = load_bytes(plane + 192 * u)
        low, high = codes6(load_bytes(plane + 192 * u + 64), pairs)
        store_bytes(out + 128 * u, low)
        store_bytes(out + 128 * u + 256, high)
        low, high = codes6(load_bytes(plane + 192 * u + 128), shift_right_bytes(pairs, 2))
        store_bytes(out + 128 * u + 64, low)
        store_bytes(out + 128 * u + 320, high)


def _with_one_level(codes, panel_block, minimum):
    @device
    def unpack(w, out, columns):
        for _ in range(columns // BLOCK):
            codes(w + (64 if minimum else 32), out)
            store_f32(out + WIDE_CODES, load_f16(w))
            if minimum:
                store_f32(out + WIDE_CODES + 64, load_f16(w + 32))
            w += panel_block
            out += WIDE_BLOCK

    return unpack


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
        d_high = scale_of_second6(d)
        for block in range(8):
            _codes6(w + 288 + block * 384, out)
            store_f32(out + WIDE_CODES, d * to_f32(load_i8(w + block * 32)))
            store_f32(out + WIDE_CODES + 64, d_high * to_f32(load_i8(w + block * 32 + 16)))
            out += WIDE_BLOCK
        w += PANEL_Q6_K


# -- multiplying: sums and what they add are those of `panels.py` ---------------------------------------


def _dots(dot):
    @device
    def in_turn(low, high, w, x, nt):
        for i in range(4):
            low = dot(low, load_bytes(w + 64 * i), x + 4 * nt * i)
            high = dot(high, load_bytes(w + 256 + 64 * i), x + 4 * nt * (i + 4))
        return low, high

    @device
    def low_first(low, high, w, x, nt):
        for i in range(4):
            low = dot(low, load_bytes(w + 64 * i), x + 4 * nt * i)
        for i in range(4):
            high = dot(high, load_bytes(w + 256 + 64 * i), x + 4 * nt * (i + 4))
        return low, high

    # Both sums of four tokens take all sixteen registers of half a vector: with AVX-VNNI, prompts are 9 to
    # 18% faster when the low ones are done before the high ones begin.
    return low_first if LARGEST_TILE == 4 else in_turn


_small_dots, _large_dots = _dots(dot4_small), _dots(dot4)


def _zero(scaled):
    @device
    def add(c, w, x, aux):
        low, high = sums_less_zero(c, _small_dots, w, x, aux)
        return scaled(c, low, high, aux, load_f32(w + WIDE_CODES))

    return add


def _minimum(scaled):
    @device
    def add(c, w, x, aux):
        low, high = sums(c, _small_dots, w, x)
        c = scaled(c, low, high, aux, load_f32(w + WIDE_CODES))
        return add_minimum(c, aux, load_f32(w + WIDE_CODES + 64))

    return add


@device
def _two_scales(c, w, x, aux):
    low, high = large_sums_less_zero(c, _large_dots, w, x, aux)
    c = add_low(c, low, aux, load_f32(w + WIDE_CODES))
    return add_high(c, high, aux, load_f32(w + WIDE_CODES + 64))


def _blocks(add):
    """A panel against a tile, as in `panels.py`, from what a block adds."""

    @device
    def panel(c, w, x, aux, x_stride, columns):
        nt = size(c)
        for _ in range(columns // BLOCK):
            c = add(c, w, x, aux)
            w += WIDE_BLOCK
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        return c

    return panel


# By form (layout.WIDE_FORMS): how a panel is taken apart, and how what came of it is multiplied.
WIDE = {
    "q4_0": (_with_one_level(_codes4, PANEL_Q4_0, False), _blocks(_zero(add_nibbles))),
    "q4_1": (_with_one_level(_codes4, PANEL_Q4_1, True), _blocks(_minimum(add_nibbles))),
    "q5_0": (_with_one_level(_codes5, PANEL_Q5_0, False), _blocks(_zero(add_scaled))),
    "q5_1": (_with_one_level(_codes5, PANEL_Q5_1, True), _blocks(_minimum(add_scaled))),
    "q4_k": (_with_two_levels(_codes4, PANEL_Q4_K, 256), _blocks(_minimum(add_nibbles))),
    "q5_k": (_with_two_levels(_codes5, PANEL_Q5_K, 320), _blocks(_minimum(add_scaled))),
    "q6_k": (_unpack_q6_k, _blocks(_two_scales)),
}
if LARGEST_TILE >= 8:
    WIDE = {form: pair for form, pair in WIDE.items() if form.startswith(("q5", "q6"))}
