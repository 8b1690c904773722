"""One panel of 16 rows against one tile of tokens: the expression of a single output, for each packed form.

`c` is the tile of f32 sums so far; w, x, aux are addresses; `matmul.py` draws the picture, `layout.py` the
bytes.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4, codes5, codes6, scale_of_second6
from edgellm.kernels.jit import (
    CODES_IN_TURN,
    LARGEST_TILE,
    NIBBLES_IN_PLACE,
    REQUESTS,
    WEIGHT_FLIP,
    device,
    float32,
)
from edgellm.kernels.layout import (
    AUX_SCALE_HIGH,
    AUX_SCALE_LOW,
    AUX_SIXTEENTH_HIGH,
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
from edgellm.simd.arithmetic import shift_right_bytes, splat, to_f32
from edgellm.simd.dots import (
    begin_partial,
    dot4,
    dot4_signed,
    dot4_small,
    end_partial,
    fma_scaled,
    scale_fma,
    start,
    zeros_i32,
)
from edgellm.simd.ops import load_bf16, load_bytes, load_f16, load_f32, load_i8, load_u8
from edgellm.simd.tiles import fetch_here, fma_splat, later, pitch, size

# Weights are fetched into L2 before their use: `targets.requests` says how long before, and for which tiles.
#
# A line at a time, between dot products: a core has some sixteen places for lines on their way, which its
# loads need, too. With the five requests of a block side by side, a Xeon that reads 19 GB/s takes four tokens
# of Q4_0 through memory at 13, and so at 16.
_AHEAD, _FEW, _MANY = REQUESTS


@device
def _fetch(tile, w):
    """Ask for the line that the loop will reach long after w."""
    fetch_here(tile, w + _AHEAD, _FEW)


@device
def _dots4(low, high, w, x, nt):
    """32 columns of nibbles at w."""
    for i in range(4):
        _fetch(low, w + 64 * i)
        low_code, high_code = codes4(load_bytes(w + 64 * i))
        low = dot4_small(low, low_code, x + 4 * nt * i)
        high = dot4_small(high, high_code, x + 4 * nt * (i + 4))
    return low, high


@device
def _dots5(low, high, w, x, nt):
    """The same with a fifth bit: first a vector whose bit i is the top bit of vector i of the eight."""
    _fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        low_code, high_code = codes5(load_bytes(w + 64 + 64 * i), top)
        low = dot4_small(low, low_code, x + 4 * nt * i)
        _fetch(low, w + 64 + 64 * i)
        high = dot4_small(high, high_code, x + 4 * nt * (i + 4))
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6(low, high, w, x, nt):
    """A vector of pairs of bits and two of nibbles."""
    _fetch(low, w)
    pairs = load_bytes(w)
    low_code, high_code = codes6(load_bytes(w + 64), pairs)
    high = dot4(high, high_code, x + 16 * nt)  # high before low: ARM has fewer spills
    _fetch(low, w + 64)
    low = dot4(low, low_code, x)
    low_code, high_code = codes6(load_bytes(w + 128), shift_right_bytes(pairs, 2))
    high = dot4(high, high_code, x + 20 * nt)
    _fetch(low, w + 128)
    low = dot4(low, low_code, x + 4 * nt)
    return low, high


# Where registers are few (a Pi 4), the codes of either half are put together when they are wanted, and their
# bytes loaded again.


@device
def _dots5_in_turn(low, high, w, x, nt):
    """`_dots5`, the high codes of several tokens once the low ones' products are done."""
    _fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        at = w + 64 + 64 * i
        code, _ = codes5(load_bytes(at), top)
        low = dot4_small(low, code, x + 4 * nt * i)
        _fetch(low, at)
        _, code = codes5(load_bytes(later(at, low) if nt > 1 else at), top)
        high = dot4_small(high, code, x + 4 * nt * (i + 4))
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6_in_turn(low, high, w, x, nt):
    """`_half6`, each codes' products after those before."""
    _fetch(low, w)
    _, code = codes6(load_bytes(w + 64), load_bytes(w))
    high = dot4(high, code, x + 16 * nt)
    _fetch(low, w + 64)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 64), load_bytes(w))
    low = dot4(low, code, x)
    w = later(w, low)
    _, code = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    high = dot4(high, code, x + 20 * nt)
    _fetch(low, w + 128)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    low = dot4(low, code, x + 4 * nt)
    return low, high


if CODES_IN_TURN:
    _dots5, _half6 = _dots5_in_turn, _half6_in_turn


@device
def _dots6(low, high, w, x, nt):
    """32 columns of 6 bits (`pack.q6_k` says which)."""
    if LARGEST_TILE == 2:  # ARM: both halves at once would put sums on the stack
        for u in range(2):
            low, high = _half6(low, high, w + 192 * u, x + 8 * nt * u, nt)
        return low, high
    low, high = _half6(low, high, w, x, nt)
    return _half6(low, high, w + 192, x + 8 * nt, nt)


# -- a block of 32 columns: the sums of 16 each, its codes being at `codes` and taken by `dots`, then what
# they add. A scale is loaded where it is wanted: before, it would take registers from the sums.


@device
def sums(c, dots, codes, x):
    """sum(code * x), of the low and of the high 16 columns."""
    low, high = dots(begin_partial(c, 0), begin_partial(c, 0), codes, x, pitch(c))
    return end_partial(low, 0), end_partial(high, 0)


@device
def sums_less_zero(c, dots, codes, x, aux):
    """sum((code - zero) * x): the accumulators start at -zero * sum(x)."""
    nt = pitch(c)
    low_start, high_start = aux + AUX_START_LOW * 4 * nt, aux + AUX_START_HIGH * 4 * nt
    low, high = dots(begin_partial(c, low_start), begin_partial(c, high_start), codes, x, nt)
    return end_partial(low, low_start), end_partial(high, high_start)


@device
def large_sums_less_zero(c, dots, codes, x, aux):
    """The same, of codes too large for the partial sums of `dot4_small`."""
    nt = pitch(c)
    return dots(start(c, aux + AUX_START_LOW * 4 * nt), start(c, aux + AUX_START_HIGH * 4 * nt), codes, x, nt)


@device
def add_scaled(c, low, high, aux, scale):
    """A scale for 32 columns."""
    nt = pitch(c)
    return scale_fma(c, low, high, aux + AUX_SCALE_LOW * 4 * nt, aux + AUX_SCALE_HIGH * 4 * nt, scale)


@device
def add_nibbles(c, low, high, aux, scale):
    """The same for sums of nibbles, as `codes.py` takes them."""
    nt = pitch(c)
    of_high = AUX_SIXTEENTH_HIGH if NIBBLES_IN_PLACE else AUX_SCALE_HIGH
    return scale_fma(c, low, high, aux + AUX_SCALE_LOW * 4 * nt, aux + of_high * 4 * nt, scale)


@device
def add_minimum(c, aux, minimum):
    """The minimum of 32 columns meets the sum of their activations."""
    return fma_splat(c, minimum, aux + AUX_SUM * 4 * pitch(c), 4)


@device
def add_low(c, low, aux, scale):
    """A scale for the low 16 columns."""
    return fma_scaled(c, low, aux + AUX_SCALE_LOW * 4 * pitch(c), scale)


@device
def add_high(c, high, aux, scale):
    """A scale for the high 16 columns."""
    return fma_scaled(c, high, aux + AUX_SCALE_HIGH * 4 * pitch(c), scale)


# -- the forms -----------------------------------------------------------------------------------------


@device
def _with_zero(c, w, x, aux, columns, dots, add, panel_block):
    """Blocks of a scale, then codes."""
    nt = size(c)
    for _ in range(columns // BLOCK):
        low, high = sums_less_zero(c, dots, w + 32, x, aux)
        _fetch(c, w)
        c = add(c, low, high, aux, load_f16(w))
        w += panel_block
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _with_minimum(c, w, x, aux, columns, dots, add, panel_block):
    """Blocks of a scale, a minimum, then codes."""
    nt = size(c)
    for _ in range(columns // BLOCK):
        low, high = sums(c, dots, w + 64, x)
        _fetch(c, w)
        c = add(c, low, high, aux, load_f16(w))
        c = add_minimum(c, aux, load_f16(w + 32))
        w += panel_block
        x += BLOCK * nt
        aux += AUX_WORDS * 4 * nt
    return c


@device
def _with_two_levels(c, w, x, aux, columns, dots, add, panel_block, block_bytes):
    """value (d * scale) * code - dmin * minimum: bytes of scale and minimum for each 32 columns, d, dmin
    for 256.
    """
    nt = size(c)
    nothing = splat(float32(0.0))
    for _ in range(columns // 256):
        d, dmin = load_f16(w), nothing - load_f16(w + 32)
        for block in range(8):
            codes = w + 320 + block * block_bytes
            low, high = sums(c, dots, codes, x)
            _fetch(c, w + 320 // 8 * block)  # of what stands before the codes, an eighth
            c = add(c, low, high, aux, d * to_f32(load_u8(w + 64 + 16 * block)))
            c = add_minimum(c, aux, dmin * to_f32(load_u8(w + 192 + 16 * block)))
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        w += panel_block
    return c


@device
def q4_0(c, w, x, aux, x_stride, columns):
    return _with_zero(c, w, x, aux, columns, _dots4, add_nibbles, PANEL_Q4_0)


@device
def q4_1(c, w, x, aux, x_stride, columns):
    return _with_minimum(c, w, x, aux, columns, _dots4, add_nibbles, PANEL_Q4_1)


@device
def q5_0(c, w, x, aux, x_stride, columns):
    return _with_zero(c, w, x, aux, columns, _dots5, add_scaled, PANEL_Q5_0)


@device
def q5_1(c, w, x, aux, x_stride, columns):
    return _with_minimum(c, w, x, aux, columns, _dots5, add_scaled, PANEL_Q5_1)


@device
def q4_k(c, w, x, aux, x_stride, columns):
    return _with_two_levels(c, w, x, aux, columns, _dots4, add_nibbles, PANEL_Q4_K, 256)


@device
def q5_k(c, w, x, aux, x_stride, columns):
    return _with_two_levels(c, w, x, aux, columns, _dots5, add_scaled, PANEL_Q5_K, 320)


@device
def q8_0(c, w, x, aux, x_stride, columns):
    """signed bytes, value d * code. Where dot4_signed wants them flipped, the start takes 128 * sum(x)
    back.
    """
    nt = size(c)
    for _ in range(columns // BLOCK):
        if WEIGHT_FLIP:
            low, high = start(c, aux + AUX_START_LOW * 4 * nt), start(c, aux + AUX_START_HIGH * 4 * nt)
        else:
            low, high = zeros_i32(c), zeros_i32(c)
        for i in range(4):
            fetch_here(c, w + 32 + 64 * i + _AHEAD, _MANY)
            low = dot4_signed(low, load_bytes(w + 32 + 64 * i), x + 4 * nt * i)
            fetch_here(c, w + 288 + 64 * i + _AHEAD, _MANY)
            high = dot4_signed(high, load_bytes(w + 288 + 64 * i), x + 4 * nt * (i + 4))
        fetch_here(c, w + _AHEAD, _MANY)
        c = add_scaled(c, low, high, aux, load_f16(w))
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
            codes = w + 288 + block * 384
            low, high = large_sums_less_zero(c, _dots6, codes, x, aux)
            _fetch(c, w + 288 // 8 * block)  # of what stands before the codes, an eighth
            c = add_low(c, low, aux, d * to_f32(load_i8(w + block * 32)))
            c = add_high(c, high, aux, d_high * to_f32(load_i8(w + block * 32 + 16)))
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
