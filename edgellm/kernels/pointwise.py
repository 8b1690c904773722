"""Row by row: norms, gated units, sums.

A chunk is PW_CHUNK rows, or a part of their columns. Sums run over 16 lanes in order and are folded in one
tree, so a row's bits are its own.
"""

from __future__ import annotations

from edgellm.kernels.jit import add_kernel, device, float32, int64, kernel
from edgellm.kernels.layout import (
    BLOCK,
    H_ONE,
    LANES,
    PW_CHUNK,
    PW_CODES,
    PW_COLUMNS,
    PW_EPS,
    PW_HEADS,
    PW_ROWS,
    PW_SLOT,
    PW_WEIGHT,
    PW_X,
    PW_X2,
    PW_X_STRIDE,
    PW_Y,
    PW_Y_STRIDE,
)
from edgellm.kernels.math import exp
from edgellm.kernels.quantize import ROOM, RUN, place_of, quantize_run
from edgellm.kernels.shares import columns_of, rows_of, share_of
from edgellm.simd.arithmetic import fma, splat, sqrt
from edgellm.simd.folds import sum_f32
from edgellm.simd.ops import get_f32, get_i32, get_i64, load_f32, put_f32, room, store_f32
from edgellm.simd.tiles import load_rows, store_rows, zeros

_FACTORS = 4 * PW_CHUNK  # bytes of an f32 for each row of a chunk


@device
def _mean_square(x, columns):
    acc = splat(float32(0.0))
    for i in range(columns // LANES):
        v = load_f32(x + 64 * i)
        acc = fma(v, v, acc)
    total = sum_f32(acc)
    for i in range(columns // LANES * LANES, columns):
        v = get_f32(x + 4 * i)
        total = total + v * v
    return total / float32(columns)


@device
def _factor(x, columns, eps):
    """What a norm multiplies a row by: 1 / sqrt(mean(x^2) + eps)."""
    return float32(1.0) / sqrt(_mean_square(x, columns) + eps)


@device
def _scaled(x, y, weight, first, end, factor):
    """x * factor * weight -> y, columns `first` to `end`."""
    whole = first + (end - first) // LANES * LANES
    for i in range(first, whole, LANES):
        store_f32(y + 4 * i, load_f32(x + 4 * i) * splat(factor) * load_f32(weight + 4 * i))
    for i in range(whole, end):
        put_f32(y + 4 * i, get_f32(x + 4 * i) * factor * get_f32(weight + 4 * i))


@kernel
def head_norm(args, header, chunk, worker):
    """`rms_norm` of each head on its own, with one weight for all: rows of PW_HEADS times PW_COLUMNS."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns, heads = get_i64(args + 8 * PW_COLUMNS), get_i64(args + 8 * PW_HEADS)
    weight, eps = get_i64(args + 8 * PW_WEIGHT), get_f32(args + 8 * PW_EPS)
    for t in range(*rows_of(header, chunk, tokens)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for h in range(*share_of(header, chunk, heads)):
            at = 4 * columns * h
            _scaled(x + at, y + at, weight, 0, columns, _factor(x + at, columns, eps))


@device
def _row_at(args, header, t):
    """Where row t of x is, or the row that PW_ROWS has for it."""
    index = get_i64(args + 8 * PW_ROWS)
    row = int64(get_i32(get_i64(header + 8 * index) + 4 * t)) if index != H_ONE else t
    return get_i64(args + 8 * PW_X) + row * get_i64(args + 8 * PW_X_STRIDE)


@kernel
def rms_norm(args, header, chunk, worker):
    """x / sqrt(mean(x^2) + eps) * weight, to f32 rows, to quantized rows, or to both."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns, eps = get_i64(args + 8 * PW_COLUMNS), get_f32(args + 8 * PW_EPS)
    weight, out = get_i64(args + 8 * PW_WEIGHT), get_i64(args + 8 * PW_Y)
    first, end = columns_of(header, chunk, columns)
    values, factors = room(ROOM), room(_FACTORS)
    if first == end:
        return
    begin, after = rows_of(header, chunk, tokens)
    for t in range(begin, after):  # by themselves: each is one operation after the other
        put_f32(factors + 4 * (t - begin), _factor(_row_at(args, header, t), columns, eps))
    for t in range(begin, after):
        x, factor = _row_at(args, header, t), get_f32(factors + 4 * (t - begin))
        if get_i64(args + 8 * PW_CODES) != 0:
            place = place_of(args, t, tokens, columns)
            for column in range(first, end, RUN * BLOCK):
                count = min(RUN * BLOCK, end - column)
                _scaled(x + 4 * column, values, weight + 4 * column, 0, count, factor)
                quantize_run(values, count // BLOCK, place, column // BLOCK)
        if out != 0:
            _scaled(x, out + t * get_i64(args + 8 * PW_Y_STRIDE), weight, first, end, factor)


@device
def _silu(x):
    """x / (1 + exp(-x))."""
    return x / (splat(float32(1.0)) + exp(splat(float32(0.0)) - x))


@device
def _gelu_tanh(x):
    """x / (1 + exp(-2 u)), which is x (1 + tanh u) / 2, for u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    cube = splat(float32(0.044715)) * x * x * x
    return x / (splat(float32(1.0)) + exp(splat(float32(-1.5957691)) * (x + cube)))


def _glu(activation):
    def glu(args, header, chunk, worker):
        """f(x) * x2, to f32 rows, quantized rows, or both. Columns: a multiple of 16, of 32 if quantized."""
        tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
        columns = get_i64(args + 8 * PW_COLUMNS)
        out, stride = get_i64(args + 8 * PW_Y), get_i64(args + 8 * PW_X_STRIDE)
        first, end = columns_of(header, chunk, columns)
        values = room(ROOM)
        for t in range(*rows_of(header, chunk, tokens)):
            x = get_i64(args + 8 * PW_X) + t * stride
            x2 = get_i64(args + 8 * PW_X2) + t * stride
            if get_i64(args + 8 * PW_CODES) != 0:
                place = place_of(args, t, tokens, columns)
                for column in range(first, end, RUN * BLOCK):
                    count = min(RUN * BLOCK, end - column)
                    for i in range(column, column + count, BLOCK):  # two vectors, neither waits for the other
                        gate = load_rows(zeros(2), x + 4 * i, 4 * LANES)
                        value = activation(gate) * load_rows(gate, x2 + 4 * i, 4 * LANES)
                        store_rows(value, values + 4 * (i - column), 4 * LANES)
                    quantize_run(values, count // BLOCK, place, column // BLOCK)
            if out != 0:
                y = out + t * get_i64(args + 8 * PW_Y_STRIDE)
                for i in range(first, end, LANES):
                    store_f32(y + 4 * i, activation(load_f32(x + 4 * i)) * load_f32(x2 + 4 * i))

    return glu


add_kernel("pointwise.glu_silu", _glu(_silu))
add_kernel("pointwise.glu_gelu_tanh", _glu(_gelu_tanh))


@kernel
def add(args, header, chunk, worker):
    """x + x2, rows of one stride, with room for whole vectors."""
    rows, stride = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT)), get_i64(args + 8 * PW_X_STRIDE)
    first, end = columns_of(header, chunk, get_i64(args + 8 * PW_COLUMNS))
    for t in range(*rows_of(header, chunk, rows)):
        x, x2 = get_i64(args + 8 * PW_X) + t * stride, get_i64(args + 8 * PW_X2) + t * stride
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(first, end, LANES):
            store_f32(y + 4 * i, load_f32(x + 4 * i) + load_f32(x2 + 4 * i))


@kernel
def scale(args, header, chunk, worker):
    """x * the f32 in PW_EPS, rows with room for whole vectors."""
    rows, factor = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT)), splat(get_f32(args + 8 * PW_EPS))
    first, end = columns_of(header, chunk, get_i64(args + 8 * PW_COLUMNS))
    for t in range(*rows_of(header, chunk, rows)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(first, end, LANES):
            store_f32(y + 4 * i, load_f32(x + 4 * i) * factor)


@kernel
def gather(args, header, chunk, worker):
    """Output rows of x -> y. Columns are a multiple of 16."""
    rows = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    first, end = columns_of(header, chunk, get_i64(args + 8 * PW_COLUMNS))
    for t in range(*rows_of(header, chunk, rows)):
        row = int64(get_i32(get_i64(header + 8 * get_i64(args + 8 * PW_ROWS)) + 4 * t))
        x = get_i64(args + 8 * PW_X) + row * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(first, end, LANES):
            store_f32(y + 4 * i, load_f32(x + 4 * i))
