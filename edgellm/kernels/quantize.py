"""Activations to int8, as matmul kernels read them (`layout.py` has the picture).

A group of 16 columns is rounded at max |x| / 127; its scale is then fitted to the codes by least squares,
which takes a sixteenth off the squared error. Groups have 16 lanes, so a maximum or a sum over one would be
four shuffles; sixteen groups are done together, and share them: `fold_max`, `fold_sum`.
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, device, float32, int32, int64, kernel
from edgellm.kernels.layout import (
    AUX_SCALE_HIGH,
    AUX_SCALE_LOW,
    AUX_START_HIGH,
    AUX_START_LOW,
    AUX_SUM,
    AUX_WORDS,
    BLOCK,
    LANES,
    PW_AUX,
    PW_CODES,
    PW_COLUMNS,
    PW_PLANES,
    PW_SLOT,
    PW_X,
    PW_X_STRIDE,
    PW_ZERO,
)
from edgellm.kernels.math import round_to_i32
from edgellm.kernels.shares import columns_of, rows_of
from edgellm.simd.ops import (
    absolute,
    fma,
    fold_max,
    fold_sum,
    get_f32,
    get_i64,
    load_f32,
    put_f32,
    put_i32,
    room,
    scatter_words,
    splat,
    store_f32,
    to_f32,
    where_less,
)

RUN = 8  # blocks that are quantized together
_ROWS = 64 * 2 * RUN  # bytes of sixteen vectors
_WHOLE, _SQUARES, _PRODUCTS, _PEAKS = _ROWS, 2 * _ROWS, 3 * _ROWS, 4 * _ROWS
_TOTALS, _SCALES = _PEAKS + 64, _PEAKS + 128
ROOM = _PEAKS + 192  # bytes that a run needs: its values first


@device
def tile_of(t, tokens):
    """First token and size of the tile that token t stands in: as many of the largest as fit, then halves."""
    size = LARGEST_TILE
    first = 0
    while True:
        count = (tokens - first) // size
        if t < first + count * size:
            return first + (t - first) // size * size, size
        first += count * size
        size //= 2


@device
def place_of(args, t, tokens, columns):
    """Where token t's quantized row begins (codes, aux), bytes between its words, zero point, rows, and how
    far the second row's codes and aux are from the first's.
    """
    planes = get_i64(args + 8 * PW_PLANES)
    row, apart = t * planes, t < tokens // LARGEST_TILE * LARGEST_TILE
    if planes == 2 and apart:
        row -= t % LARGEST_TILE
    first, nt = tile_of(row, tokens * planes)
    aux_bytes = columns // BLOCK * AUX_WORDS * 4
    codes = get_i64(args + 8 * PW_CODES) + first * columns + 4 * (row - first)
    aux = get_i64(args + 8 * PW_AUX) + first * aux_bytes + 4 * (row - first)
    codes_on, aux_on = (nt * columns, nt * aux_bytes) if apart else (4, 4)
    return codes, aux, 4 * nt, get_i64(args + 8 * PW_ZERO), planes, codes_on, aux_on


@device
def quantize_run(values, count, place, block):
    """`count` blocks (at most RUN), the first being number `block`, from f32 at `values`, into the row (or
    two) that `place` says. `values` is the beginning of ROOM bytes.
    """
    codes, aux, step, zero, planes, codes_on, aux_on = place
    codes, aux = codes + block * 8 * step, aux + block * AUX_WORDS * step
    for plane in range(planes):
        _round(values, count, codes + codes_on * plane, step)
        _fit(values)
        for b in range(count):
            _put_aux(values + 8 * b, aux + b * AUX_WORDS * step + aux_on * plane, step, zero)
        if plane + 1 < planes:
            for at in range(0, 128 * count, 64):
                scale = splat(float32(0.0) - get_f32(values + _SCALES + at // 16))
                store_f32(values + at, fma(load_f32(values + _WHOLE + at), scale, load_f32(values + at)))


@device
def _round(values, count, codes, step):
    """Codes of each group, and the three vectors whose sums `_fit` needs."""
    for at in range(0, 128 * count, 64):
        store_f32(values + _SQUARES + at, absolute(load_f32(values + at)))
    peaks = fold_max(values + _SQUARES)
    inverse = where_less(splat(float32(1e-30)), peaks, splat(float32(127.0)) / peaks, splat(float32(0.0)))
    store_f32(values + _PEAKS, inverse)
    for at in range(0, 128 * count, 64):
        x = load_f32(values + at)
        q = round_to_i32(x * splat(get_f32(values + _PEAKS + at // 16)))
        scatter_words(codes + at // 16 * step, step, q)
        whole = to_f32(q)
        store_f32(values + _WHOLE + at, whole)
        store_f32(values + _SQUARES + at, whole * whole)
        store_f32(values + _PRODUCTS + at, x * whole)


@device
def _fit(values):
    """The scale of each group and the sum of its codes."""
    nothing = splat(float32(0.0))
    energy = fold_sum(values + _SQUARES)
    scale = where_less(nothing, energy, fold_sum(values + _PRODUCTS) / energy, nothing)
    store_f32(values + _SCALES, scale)
    store_f32(values + _TOTALS, fold_sum(values + _WHOLE))


@device
def _put_aux(values, aux, step, zero):
    """Scales, starts and sum of one block, whose groups are the first two at `values`."""
    low, high = get_f32(values + _SCALES), get_f32(values + _SCALES + 4)
    low_total, high_total = get_f32(values + _TOTALS), get_f32(values + _TOTALS + 4)
    put_f32(aux + AUX_SCALE_LOW * step, low)
    put_f32(aux + AUX_SCALE_HIGH * step, high)
    put_f32(aux + AUX_SUM * step, low * low_total + high * high_total)
    put_i32(aux + AUX_START_LOW * step, int32(-zero * int64(low_total)))
    put_i32(aux + AUX_START_HIGH * step, int32(-zero * int64(high_total)))


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
