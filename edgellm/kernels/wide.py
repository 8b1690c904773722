"""Panels for many tokens: a piece of one is unpacked once, to bytes and f32 scales, and stays in L1 for tile
after tile, where `panels.py` would take it apart for each. The sums are the same, bit for bit.

The smaller the tile, the more that is: with two tokens (ARM) up to 54% of the instructions go, with four
(AVX2) up to two thirds of the time. With eight (AVX-512) prompts are 6 to 8% faster with codes of 5 and 6
bits; those of 4 bits, which are only masked and shifted, are not faster then, and not unpacked.

Where two panels go together (`two_panels.py` says why), both have a piece unpacked, and each block asks for a
line of a next piece.

Where an instruction multiplies two rows by two tokens (`simd/interleaved.py`), pieces are unpacked in its
order: 8 columns of a row side by side, and twice what is one number a row. Bytes are unpacked so, too.
"""

from __future__ import annotations

from edgellm.kernels import weighed
from edgellm.kernels.codes import codes4, codes5, codes6, scale_of_second6
from edgellm.kernels.jit import (
    CODES_IN_TURN,
    LARGEST_TILE,
    MATRIX_PRODUCTS,
    PANELS_TOGETHER,
    SUMS_OF_PAIRS,
    device,
    float32,
)
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
    PANEL_Q8_0,
    WIDE_CODES,
    WIDE_PANEL,
)
from edgellm.kernels.panels import (
    add_minimum,
    add_scaled,
    add_total,
    add_two_scaled,
    nibble_sums,
    sums_less_zero,
    sums_of,
)
from edgellm.simd.arithmetic import shift_right_bytes, splat, to_f32
from edgellm.simd.dots import dot4
from edgellm.simd.fetching import fetch_here, later
from edgellm.simd.interleaved import apart, dot8, interleave, store_alternating
from edgellm.simd.ops import load_bytes, load_f16, load_f32, load_i8, load_u8, store_bytes, store_f32
from edgellm.simd.tiles import beside, pitch

_ROWS = 128 if MATRIX_PRODUCTS else 64  # bytes of an f32 for each row
_BLOCK = WIDE_CODES + 2 * _ROWS

# -- taking apart: unpack(w, out, columns) -------------------------------------------------------------


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
        store_alternating(out + WIDE_CODES + _ROWS * number, rows, rows)
    else:
        store_f32(out + WIDE_CODES + _ROWS * number, rows)


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
            out += _BLOCK

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
                out += _BLOCK
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
            out += _BLOCK
        w += PANEL_Q6_K


# -- multiplying: sums and what they add are those of `panels.py` ---------------------------------------


@device
def _rows(w, number):
    """The f32 of each row, as a tile's sums meet them."""
    at = w + WIDE_CODES + _ROWS * number
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
_dots = _by_steps if CODES_IN_TURN or LARGEST_TILE == 8 else _low_first
if MATRIX_PRODUCTS:
    _dots = _matrix_dots


def _codes(i):
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
            w += _BLOCK
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        return _end(tile)

    return panel


# By form (layout.WIDE_FORMS): how a panel is taken apart, and how what came of it is multiplied.
WIDE = {
    "q4_0": (_with_one_level(_codes4, PANEL_Q4_0, False), _blocks(_less_zero4)),
    "q4_1": (_with_one_level(_codes4, PANEL_Q4_1, True), _blocks(_minimum4)),
    "q5_0": (_with_one_level(_codes5, PANEL_Q5_0, False), _blocks(_less_zero5)),
    "q5_1": (_with_one_level(_codes5, PANEL_Q5_1, True), _blocks(_minimum5)),
    "q4_k": (_with_two_levels(_codes4, PANEL_Q4_K, 256), _blocks(_minimum4)),
    "q5_k": (_with_two_levels(_codes5, PANEL_Q5_K, 320), _blocks(_minimum5)),
    "q6_k": (_unpack_q6_k, _blocks(_two_scales)),
}
if MATRIX_PRODUCTS:
    WIDE["q8_0"] = (_with_one_level(_codes8, PANEL_Q8_0, False), _blocks(_bytes))
if LARGEST_TILE >= 8:
    WIDE = {form: pair for form, pair in WIDE.items() if form.startswith(("q5", "q6"))}
