"""Activations to int8, as matmul kernels read them (`layout.py` has the picture).

Of a block's two groups of 16 columns, the one with the larger values is rounded at max |x| / 127, the other
at a power of two below that, as far as its own values allow. The scale is then fitted to the codes by least
squares, which takes a sixteenth off the squared error. Groups have 16 lanes, so a maximum or a sum over one
would be four shuffles; sixteen groups, eight blocks, are done together, and share them: `fold_peak`,
`fold_sum`.
"""

from __future__ import annotations

from edgellm.kernels.codes import TIMES_4_BITS, TIMES_6_BITS
from edgellm.kernels.jit import LARGEST_TILE, SUMS_OF_PAIRS, device, float32, int32, kernel
from edgellm.kernels.layout import (
    AUX_FACTORS,
    AUX_RATIO,
    AUX_SCALE,
    AUX_SHIFT,
    AUX_SIXTEENTH,
    AUX_START_HIGH,
    AUX_START_LOW,
    AUX_SUM,
    AUX_WORDS,
    BLOCK,
    HIGH_DOWN,
    LANES,
    LOW_DOWN,
    PW_AUX,
    PW_CODES,
    PW_COLUMNS,
    PW_PLANES,
    PW_SLOT,
    PW_X,
    PW_X_STRIDE,
    PW_ZERO,
    ZERO_4_BITS,
    ZERO_6_BITS,
)
from edgellm.kernels.math import round_to_i32
from edgellm.kernels.shares import columns_of, rows_of
from edgellm.simd.arithmetic import (
    alternating,
    bits_float,
    float_bits,
    fma,
    low_bytes,
    maximum,
    minimum_i32,
    shift_left_i32,
    shift_right_i32,
    splat,
    splat_i32,
    swap_neighbours,
    swap_neighbours_i32,
    to_f32,
    where_less,
)
from edgellm.simd.folds import byte_sums, fold_peak, fold_sum, square_sums
from edgellm.simd.ops import (
    get_f32,
    get_i32,
    get_i64,
    load_f32,
    load_i8,
    load_i32,
    put_i32,
    room,
    store_bytes,
    store_f32,
    store_i32,
)

RUN = 32  # blocks that are quantized together, at most
_FOLDED = 64 * LANES  # bytes of sixteen groups
# A run's values; their products with the codes; the codes as bytes. Then vectors of sixteen groups: what
# their values are multiplied by, later their scales; how many binary orders they are below the larger of the
# block; and each of the aux words, in the lanes of the first of two groups.
_PRODUCTS, _CODES, _SCALES = 128 * RUN, 256 * RUN, 288 * RUN
_ORDERS, _AUX = _SCALES + 8 * RUN, _SCALES + 16 * RUN
_WORD = 8 * RUN
_SIXTEENTHS = TIMES_4_BITS > 1 or SUMS_OF_PAIRS
_USED = AUX_WORDS if _SIXTEENTHS else AUX_SIXTEENTH
ROOM = _AUX + AUX_WORDS * _WORD  # bytes that a run needs: its values first
_ONE = 127  # the exponent's bits of 1.0
APART = min(4, LARGEST_TILE)  # tokens whose first and second rows are worth a tile each


@device
def spare(size):
    """How many tokens a tile of this size may lack, of those that take quantized rows."""
    return 1 if size >= 4 else 0


@device
def tile_of(t, tokens):
    """First token and size of the tile that token t stands in: as many of the largest as fit, then halves."""
    size = LARGEST_TILE
    first = 0
    while True:
        count = (tokens - first + spare(size)) // size
        if t < first + count * size:
            return first + (t - first) // size * size, size
        first += count * size
        size //= 2


@device
def place_of(args, t, tokens, columns):
    """Where token t's quantized row begins (codes, aux), bytes between its words, zero point, rows, how far
    the second row's codes and aux are from the first's, and whether the row after it is one that its tile
    lacks.
    """
    planes = get_i64(args + 8 * PW_PLANES)
    apart = t < (tokens + spare(APART)) // APART * APART
    if apart:
        first, nt = tile_of(t, tokens)
        row, first = planes * first + t - first, planes * first
    else:
        row = planes * t
        first, nt = tile_of(row, planes * tokens)
    aux_bytes = columns // BLOCK * AUX_WORDS * 4
    codes = get_i64(args + 8 * PW_CODES) + first * columns + 4 * (row - first)
    aux = get_i64(args + 8 * PW_AUX) + first * aux_bytes + 4 * (row - first)
    codes_on, aux_on = (nt * columns, nt * aux_bytes) if apart else (4, 4)
    lacking = nt >= 4 and t + 1 == tokens and tokens % 4 == 3
    return codes, aux, 4 * nt, get_i64(args + 8 * PW_ZERO), planes, codes_on, aux_on, lacking


@device
def quantize_run(values, count, place, block):
    """`count` blocks (at most RUN), the first being number `block`, from f32 at `values`, into the row (or
    two) that `place` says. `values` is the beginning of ROOM bytes.

    Each step is done for the whole run: maximum, quotient, codes, sum and quotient again wait for each other,
    so that other groups have to fill the time.
    """
    codes, aux, step, zero, planes, codes_on, aux_on, lacking = place
    codes, aux = codes + block * 8 * step, aux + block * AUX_WORDS * step
    for plane in range(planes):
        for at in range(0, 128 * count, _FOLDED):
            _invert_peaks(values + at, values + at // 16)
        for at in range(0, 128 * count, 256):
            _round(values, at)
        for at in range(0, 128 * count, _FOLDED):
            _fit(values, at, zero)
        for word in range(8 * count):
            put_i32(codes + codes_on * plane + word * step, get_i32(values + _CODES + 4 * word))
        at = aux + aux_on * plane
        for b in range(count):
            for word in range(_USED):
                put_i32(at + word * step, get_i32(values + _AUX + _WORD * word + 8 * b))
            at += AUX_WORDS * step
        if lacking:
            _put_none(aux + aux_on * plane + 4, step, count)
        if plane + 1 < planes:
            for at in range(0, 128 * count, 64):
                scale = splat(float32(0.0) - get_f32(values + _SCALES + at // 16))
                whole = to_f32(load_i8(values + _CODES + at // 4))
                store_f32(values + at, fma(whole, scale, load_f32(values + at)))


@device
def _power_of_two(exponents):
    return bits_float(shift_left_i32(splat_i32(int32(_ONE)) + exponents, 23))


@device
def _invert_peaks(values, groups):
    """Sixteen groups' orders, and 127 / max |x| of the larger of a block, times 2 to the power of them."""
    peaks = fold_peak(values)
    largest = maximum(peaks, swap_neighbours(peaks))
    orders = shift_right_i32(float_bits(largest) - float_bits(peaks), 23)
    orders = minimum_i32(orders, alternating(LOW_DOWN, HIGH_DOWN))
    inverse = where_less(splat(float32(1e-30)), largest, splat(float32(127.0)) / largest, splat(float32(0.0)))
    store_f32(groups + _SCALES, inverse * _power_of_two(orders))
    store_i32(groups + _ORDERS, orders)


@device
def _round(values, at):
    """Codes of four groups, whose values are `at` bytes on."""
    a, b = _round_group(values, at), _round_group(values, at + 64)
    c, d = _round_group(values, at + 128), _round_group(values, at + 192)
    store_bytes(values + _CODES + at // 4, low_bytes(a, b, c, d))


@device
def _round_group(values, at):
    """One group's codes; their products with its values are left for `_fit`."""
    x = load_f32(values + at)
    q = round_to_i32(x * splat(get_f32(values + _SCALES + at // 16)))
    store_f32(values + _PRODUCTS + at, x * to_f32(q))
    return q


@device
def _fit(values, at, zero):
    """Scales of sixteen groups, and the aux words of their blocks. Sums of codes are integers: exact."""
    codes, groups, nothing = values + _CODES + at // 4, values + at // 16, splat(float32(0.0))
    orders = load_i32(groups + _ORDERS)
    below = _power_of_two(splat_i32(int32(0)) - orders)
    products = fold_sum(values + _PRODUCTS + at) * below
    energy = to_f32(square_sums(codes)) * below * below
    products, energy = products + swap_neighbours(products), energy + swap_neighbours(energy)
    scale = where_less(nothing, energy, products / energy, nothing) * below
    store_f32(groups + _SCALES, scale)
    totals, of_high = byte_sums(codes), swap_neighbours(scale)
    sums = scale * to_f32(totals)
    ratio, starts = swap_neighbours_i32(orders) - orders, splat_i32(int32(-zero)) * totals
    high_starts = swap_neighbours_i32(starts)
    sixteenfold = ratio + splat_i32(int32(4))  # as a power of two, 16 times the ratio
    aux = groups + _AUX
    store_f32(aux + _WORD * AUX_SCALE, of_high)
    store_f32(aux + _WORD * AUX_RATIO, _power_of_two(ratio))
    store_f32(aux + _WORD * AUX_SUM, sums + swap_neighbours(sums))
    if SUMS_OF_PAIRS:
        factor = round_to_i32(_power_of_two(sixteenfold))
        starts = starts * factor
        if zero != ZERO_6_BITS:
            high_starts = shift_left_i32(high_starts, 4) + starts
        store_i32(aux + _WORD * AUX_FACTORS, factor | shift_left_i32(factor, 16))
    elif TIMES_4_BITS > 1:
        times = TIMES_4_BITS if zero == ZERO_4_BITS else TIMES_6_BITS if zero == ZERO_6_BITS else 1
        high_starts = high_starts * splat_i32(int32(times))
        store_i32(aux + _WORD * AUX_SHIFT, sixteenfold)
    if _SIXTEENTHS:
        store_f32(aux + _WORD * AUX_SIXTEENTH, of_high * splat(float32(1.0 / 16.0)))
    store_i32(aux + _WORD * AUX_START_LOW, starts)
    store_i32(aux + _WORD * AUX_START_HIGH, high_starts)


@device
def _put_none(aux, step, count):
    """What a row that is not there adds: nothing. What stood there might be read as scales so small that each
    product with one takes as long as a hundred.
    """
    for word in range(AUX_WORDS * count):
        put_i32(aux + word * step, int32(0))


@kernel
def rows(args, header, chunk, worker):
    """x -> quantized rows."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns = get_i64(args + 8 * PW_COLUMNS)
    first, end = columns_of(header, chunk, columns)
    values = room(ROOM)
    for t in range(*rows_of(header, chunk, tokens)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        place = place_of(args, t, tokens, columns)
        for column in range(first, end, RUN * BLOCK):
            count = min(RUN * BLOCK, end - column)
            for i in range(0, count, LANES):
                store_f32(values + 4 * i, load_f32(x + 4 * (column + i)))
            quantize_run(values, count // BLOCK, place, column // BLOCK)
