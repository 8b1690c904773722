"""Panels for many tokens: a piece of one is unpacked once (`unpack.py`) and stays in L1 for tile after tile,
where `panels.py` would take it apart for each. The sums are the same, bit for bit.

The smaller the tile, the more that is: with two tokens (ARM) up to 54% of the instructions go, with four
(AVX2) up to two thirds of the time. With eight (AVX-512) prompts are 6 to 8% faster with codes of 5 and 6
bits; those of 4 bits, which are only masked and shifted, are not faster then, and not unpacked.

Where two panels go together (`two_panels.py` says why), both have a piece unpacked, and each block asks for a
line of a next piece.
"""

from __future__ import annotations

from edgellm.kernels import weighed
from edgellm.kernels.jit import (
    CODES_IN_TURN,
    LARGEST_TILE,
    MATRIX_PRODUCTS,
    PANELS_TOGETHER,
    SUMS_OF_PAIRS,
    device,
)
from edgellm.kernels.layout import AUX_WORDS, BLOCK, WIDE_CODES, WIDE_FORMS, WIDE_PANEL
from edgellm.kernels.panels import (
    add_minimum,
    add_scaled,
    add_total,
    add_two_scaled,
    nibble_sums,
    sums_less_zero,
    sums_of,
)
from edgellm.kernels.unpack import BLOCK_BYTES, ROWS_BYTES, UNPACK
from edgellm.simd.dots import dot4
from edgellm.simd.fetching import fetch_here, later
from edgellm.simd.interleaved import apart, dot8, interleave
from edgellm.simd.ops import load_bytes, load_f32
from edgellm.simd.tiles import beside, pitch


@device
def _rows(w, number):
    """The f32 of each row, as a tile's sums meet them."""
    at = w + WIDE_CODES + ROWS_BYTES * number
    if MATRIX_PRODUCTS:
        return beside(load_f32(at), load_f32(at + 64))
    if PANELS_TOGETHER == 2:
        return beside(load_f32(at), load_f32(at + WIDE_PANEL))
    return load_f32(at)


@device
def _words(at):
    """The codes of 4 columns."""
    if PANELS_TOGETHER == 2:
        return beside(load_bytes(at), load_bytes(at + WIDE_PANEL))
    return load_bytes(at)


@device
def _same(c):
    return c


_begin, _end = (interleave, apart) if MATRIX_PRODUCTS else (_same, _same)


@device
def _matrix_dots(low, high, w, x):
    """32 columns, 8 at a time, of two tokens."""
    low = dot8(low, load_bytes(w), load_bytes(w + 64), x)
    high = dot8(high, load_bytes(w + 256), load_bytes(w + 320), x + 32)
    low = dot8(low, load_bytes(w + 128), load_bytes(w + 192), x + 16)
    high = dot8(high, load_bytes(w + 384), load_bytes(w + 448), x + 48)
    return low, high


def _group(first):
    word_0, word_1, word_2, word_3 = range(first, first + 4)

    @device
    def dots(sums, w, x):
        """16 columns, written out: LLVM would leave a loop of them, on ARM."""
        sums = dot4(sums, _words(w + 64 * word_0), x, word_0)
        sums = dot4(sums, _words(w + 64 * word_1), x, word_1)
        sums = dot4(sums, _words(w + 64 * word_2), x, word_2)
        return dot4(sums, _words(w + 64 * word_3), x, word_3)

    return dots


_low_dots, _high_dots = _group(0), _group(4)


@device
def _by_steps(low, high, w, x):
    for i in range(4):
        low = dot4(low, _words(w + 64 * i), x, i)
        high = dot4(high, _words(w + 256 + 64 * i), x, i + 4)
    return low, high


@device
def _low_first(low, high, w, x):
    low = _low_dots(low, w, x)
    return low, _high_dots(high, later(w, low), x)


# Where both sums take most registers, prompts are faster when the low ones are done before the high ones
# begin: by 9 to 18% with AVX-VNNI. Written out so, ARM's loop for two tokens has a fifth less in it; but on a
# Pi 4 sums would go to the stack. With AVX-512 it takes 2 to 6% longer.
_in_order = _by_steps if CODES_IN_TURN or LARGEST_TILE == 8 else _low_first
_dots = _matrix_dots if MATRIX_PRODUCTS else _in_order


def _codes(i):
    """Vector i of a block's eight, as `weighed.py` takes them."""
    at = 64 * i

    @device
    def codes(c, w):
        return load_bytes(w + at)

    return codes


def _scale(sums, scaled):
    @device
    def add(c, w, x, aux):
        return scaled(c, sums(c, w, x, aux), aux, _rows(w, 0))

    return add


def _minimum(sums, scaled):
    @device
    def add(c, w, x, aux):
        c = scaled(c, sums(c, w, x, aux), aux, _rows(w, 0))
        return add_minimum(c, aux, _rows(w, 1))

    return add


if SUMS_OF_PAIRS:
    _less_zero, _plain = (weighed.total_of(_codes, zero) for zero in (True, False))
    _less_zero6 = weighed.totals_of(_codes)
    _less_zero4 = _less_zero5 = _scale(_less_zero, add_total)
    _minimum4 = _minimum5 = _minimum(_plain, add_total)
else:
    _less_zero4 = _scale(*nibble_sums(_dots, _low_dots, _high_dots, zero=True))
    _minimum4 = _minimum(*nibble_sums(_dots, _low_dots, _high_dots, zero=False))
    _less_zero5 = _scale(sums_less_zero(_dots), add_scaled)
    _minimum5 = _minimum(sums_of(_dots), add_scaled)
    _less_zero6 = sums_less_zero(_dots)
_bytes = _scale(sums_of(_dots), add_scaled)


@device
def _two_scales(c, w, x, aux):
    return add_two_scaled(c, _less_zero6(c, w, x, aux), aux, _rows(w, 0), _rows(w, 1))


def _blocks(add):
    """A panel against a tile, as in `panels.py`, from what a block adds; `ahead`: what to fetch."""

    @device
    def panel(c, w, x, aux, ahead, columns):
        nt, tile = pitch(c), _begin(c)
        for _ in range(columns // BLOCK):
            tile = add(tile, w, x, aux)
            if PANELS_TOGETHER == 2:
                fetch_here(c, ahead, 1)
                ahead += 64
            w += BLOCK_BYTES
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        return _end(tile)

    return panel


_MULTIPLY = {
    "q4_0": _less_zero4,
    "q4_1": _minimum4,
    "q5_0": _less_zero5,
    "q5_1": _minimum5,
    "q8_0": _bytes,
    "q4_k": _minimum4,
    "q5_k": _minimum5,
    "q6_k": _two_scales,
}
if LARGEST_TILE >= 8:
    _FORMS = ("q5_0", "q5_1", "q5_k", "q6_k")
else:
    _FORMS = WIDE_FORMS if MATRIX_PRODUCTS else tuple(form for form in WIDE_FORMS if form != "q8_0")

# By form: how a panel is taken apart, and how what came of it is multiplied.
WIDE = {form: (UNPACK[form], _blocks(_MULTIPLY[form])) for form in _FORMS}
