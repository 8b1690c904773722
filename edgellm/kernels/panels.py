"""One panel of 16 rows against one tile of tokens: the expression of a single output, for each packed form.

`c` is the tile of f32 sums so far; w, x, aux are addresses; `matmul.py` draws the picture, `layout.py` the
bytes, `packed.py` takes codes apart.
"""

from __future__ import annotations

from edgellm.kernels import in_turn, weighed
from edgellm.kernels.codes import scale_of_second6
from edgellm.kernels.jit import (
    INTEGER_SUMS,
    NIBBLES_IN_PLACE,
    SUMS_IN_TURN,
    SUMS_OF_PAIRS,
    WEIGHT_FLIP,
    device,
    float32,
)
from edgellm.kernels.layout import (
    AUX_RATIO,
    AUX_SCALE,
    AUX_SHIFT,
    AUX_SIXTEENTH,
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
    PANEL_Q8_0,
)
from edgellm.kernels.packed import (
    AHEAD,
    MANY,
    dots4,
    dots5,
    dots6,
    dots8,
    fetch,
    five_bits,
    high_dots4,
    low_dots4,
    nibbles,
    signed_bytes,
    six_bits,
)
from edgellm.simd.arithmetic import shift_left_i32, splat, to_f32
from edgellm.simd.dots import (
    fma_scaled,
    fma_two_rows,
    scale_fma,
    start,
    times_power,
    times_splat,
    zeros_i32,
)
from edgellm.simd.fetching import fetch_here, later
from edgellm.simd.ops import load_bf16, load_f16, load_f32, load_i8, load_u8
from edgellm.simd.tiles import fma_splat, pitch, size

# -- a block of 32 columns: the sums of the low and of the high 16, its codes being at `codes` and taken by
# `dots`, then what they add. A scale is loaded where it is wanted: before, it would take registers from the
# sums.


def sums_of(dots):
    """sums(c, codes, x, aux): sum(code * x)."""

    @device
    def sums(c, codes, x, aux):
        return dots(zeros_i32(c), zeros_i32(c), codes, x)

    return sums


def sums_less_zero(dots):
    """sum((code - zero) * x): the accumulators start at -zero * sum(x)."""

    @device
    def sums(c, codes, x, aux):
        nt = pitch(c)
        low, high = start(c, aux + AUX_START_LOW * 4 * nt), start(c, aux + AUX_START_HIGH * 4 * nt)
        return dots(low, high, codes, x)

    return sums


@device
def add_scaled(c, sums, aux, scale):
    """A scale for 32 columns. Their ratio is a power of two: as integers or not, sums make the same bits."""
    low, high = sums
    nt = pitch(c)
    if INTEGER_SUMS:
        total = times_power(low, aux + AUX_SHIFT * 4 * nt) + shift_left_i32(high, 4)
        return fma_scaled(c, total, aux + AUX_SIXTEENTH * 4 * nt, scale)
    return scale_fma(c, low, high, aux + AUX_RATIO * 4 * nt, aux + AUX_SCALE * 4 * nt, scale)


@device
def add_total(c, total, aux, scale):
    """The same of both sums together, 16 times (`in_turn.py`, `weighed.py`)."""
    return fma_scaled(c, total, aux + AUX_SIXTEENTH * 4 * pitch(c), scale)


@device
def add_nibbles(c, sums, aux, scale):
    """`add_scaled` for nibbles, as `codes.py` takes them: where the high sum counts 16 times already."""
    if NIBBLES_IN_PLACE:
        low, high = sums
        return add_total(c, times_power(low, aux + AUX_SHIFT * 4 * pitch(c)) + high, aux, scale)
    return add_scaled(c, sums, aux, scale)


def nibble_sums(dots, low_dots, high_dots, zero):
    """sums and add(c, sums, aux, scale), for nibbles with or without a zero point."""
    if SUMS_IN_TURN:
        return in_turn.total_of(dots, low_dots, high_dots, zero), add_total
    return (sums_less_zero(dots) if zero else sums_of(dots)), add_nibbles


@device
def add_minimum(c, aux, minimum):
    """The minimum of 32 columns meets the sum of their activations."""
    return fma_splat(c, minimum, aux + AUX_SUM * 4 * pitch(c), 4)


@device
def add_two_scaled(c, sums, aux, low_scale, high_scale):
    """A scale for the low 16 columns and one for the high ones, of codes of 6 bits."""
    low, high = sums
    nt, high_sums = pitch(c), to_f32(high)
    if SUMS_OF_PAIRS or NIBBLES_IN_PLACE:
        low_sums = to_f32(low if SUMS_OF_PAIRS else times_power(low, aux + AUX_SHIFT * 4 * nt))
        return fma_two_rows(c, low_sums, high_sums, aux + AUX_SIXTEENTH * 4 * nt, low_scale, high_scale)
    low_sums = times_splat(to_f32(low), aux + AUX_RATIO * 4 * nt)
    return fma_two_rows(c, low_sums, high_sums, aux + AUX_SCALE * 4 * nt, low_scale, high_scale)


# -- the forms -----------------------------------------------------------------------------------------

if SUMS_OF_PAIRS:
    _less_zero4, _sums4 = (weighed.total_of(nibbles, zero) for zero in (True, False))
    _less_zero5, _sums5 = (weighed.total_of(five_bits, zero) for zero in (True, False))
    _less_zero6, _sums8 = weighed.totals_of(six_bits), weighed.total_of_bytes(signed_bytes)
    _add4 = _add5 = _add8 = add_total
else:
    _less_zero4, _add4 = nibble_sums(dots4, low_dots4, high_dots4, zero=True)
    _sums4, _ = nibble_sums(dots4, low_dots4, high_dots4, zero=False)
    _less_zero5, _sums5, _less_zero6 = sums_less_zero(dots5), sums_of(dots5), sums_less_zero(dots6)
    _sums8 = sums_less_zero(dots8) if WEIGHT_FLIP else sums_of(dots8)
    _add5 = _add8 = add_scaled


@device
def _with_scale(c, w, x, aux, columns, sums, add, panel_block):
    """Blocks of a scale, then codes."""
    nt = size(c)
    for _ in range(columns // BLOCK):
        found = sums(c, w + 32, x, aux)
        fetch(c, w)
        c = add(c, found, aux, load_f16(w))
        w += panel_block
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _with_minimum(c, w, x, aux, columns, sums, add, panel_block):
    """Blocks of a scale, a minimum, then codes."""
    nt = size(c)
    for _ in range(columns // BLOCK):
        found = sums(c, w + 64, x, aux)
        fetch(c, w)
        c = add(c, found, aux, load_f16(w))
        c = add_minimum(c, aux, load_f16(w + 32))
        w += panel_block
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _with_two_levels(c, w, x, aux, columns, sums, add, panel_block, block_bytes):
    """value (d * scale) * code - dmin * minimum: bytes of scale and minimum for each 32 columns, d, dmin
    for 256.
    """
    nt = size(c)
    nothing = splat(float32(0.0))
    for _ in range(columns // 256):
        d, dmin = load_f16(w), nothing - load_f16(w + 32)
        for block in range(8):
            found = sums(c, w + 320 + block * block_bytes, x, aux)
            fetch(c, w + 320 // 8 * block)  # of what stands before the codes, an eighth
            scales = later(w, found) + 16 * block
            c = add(c, found, aux, d * to_f32(load_u8(scales + 64)))
            c = add_minimum(c, aux, dmin * to_f32(load_u8(scales + 192)))
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        w += panel_block
    return c


@device
def q4_0(c, w, x, aux, x_stride, columns):
    return _with_scale(c, w, x, aux, columns, _less_zero4, _add4, PANEL_Q4_0)


@device
def q4_1(c, w, x, aux, x_stride, columns):
    return _with_minimum(c, w, x, aux, columns, _sums4, _add4, PANEL_Q4_1)


@device
def q5_0(c, w, x, aux, x_stride, columns):
    return _with_scale(c, w, x, aux, columns, _less_zero5, _add5, PANEL_Q5_0)


@device
def q5_1(c, w, x, aux, x_stride, columns):
    return _with_minimum(c, w, x, aux, columns, _sums5, _add5, PANEL_Q5_1)


@device
def q4_k(c, w, x, aux, x_stride, columns):
    return _with_two_levels(c, w, x, aux, columns, _sums4, _add4, PANEL_Q4_K, 256)


@device
def q5_k(c, w, x, aux, x_stride, columns):
    return _with_two_levels(c, w, x, aux, columns, _sums5, _add5, PANEL_Q5_K, 320)


@device
def q8_0(c, w, x, aux, x_stride, columns):
    """signed bytes, value d * code. Where dot4_signed wants them flipped, the start takes 128 * sum(x)
    back.
    """
    nt = size(c)
    for _ in range(columns // BLOCK):
        found = _sums8(c, w + 32, x, aux)
        fetch_here(c, w + AHEAD, MANY)
        c = _add8(c, found, aux, load_f16(later(w, found)))
        w += PANEL_Q8_0
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def q6_k(c, w, x, aux, x_stride, columns):
    """value d * scale * (code - 32), codes 0-63: a signed byte of scale for 16 columns, d for 256."""
    nt = size(c)
    for _ in range(columns // 256):
        d = load_f16(w + 256)
        d_high = scale_of_second6(d)
        for block in range(8):
            found = _less_zero6(c, w + 288 + block * 384, x, aux)
            fetch(c, w + 288 // 8 * block)  # of what stands before the codes, an eighth
            low_scale, high_scale = load_i8(w + block * 32), load_i8(w + block * 32 + 16)
            c = add_two_scaled(c, found, aux, d * to_f32(low_scale), d_high * to_f32(high_scale))
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        w += PANEL_Q6_K
    return c


@device
def f16(c, w, x, aux, x_stride, columns):
    for k in range(columns):
        c = fma_splat(c, load_f16(w + 32 * k), x + 4 * k, x_stride)
    return c


@device
def bf16(c, w, x, aux, x_stride, columns):
    for k in range(columns):
        c = fma_splat(c, load_bf16(w + 32 * k), x + 4 * k, x_stride)
    return c


@device
def f32(c, w, x, aux, x_stride, columns):
    for k in range(columns):
        c = fma_splat(c, load_f32(w + 64 * k), x + 4 * k, x_stride)
    return c
