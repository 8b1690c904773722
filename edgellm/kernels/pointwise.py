"""Row by row: norms, gated units, and the quantization of activations that matmul kernels read.

A chunk is PW_CHUNK rows. Sums run over 16 lanes in order and are folded in one tree, so a row's bits are
its own.
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, add_kernel, device, float32, int32, int64, kernel
from edgellm.kernels.layout import (
    AUX_SCALE_HIGH,
    AUX_SCALE_LOW,
    AUX_START_HIGH,
    AUX_START_LOW,
    AUX_SUM,
    AUX_WORDS,
    BLOCK,
    H_ONE,
    LANES,
    PW_AUX,
    PW_CHUNK,
    PW_CODES,
    PW_COLUMNS,
    PW_EPS,
    PW_HEADS,
    PW_PLANES,
    PW_ROWS,
    PW_SLOT,
    PW_WEIGHT,
    PW_X,
    PW_X2,
    PW_X_STRIDE,
    PW_Y,
    PW_Y_STRIDE,
    PW_ZERO,
)
from edgellm.kernels.math import exp, round_to_i32
from edgellm.simd.ops import (
    absolute,
    fma,
    get_f32,
    get_i32,
    get_i64,
    load_f32,
    max_f32,
    put_f32,
    put_i32,
    scatter_words,
    splat,
    sqrt,
    store_f32,
    sum_f32,
    sum_i32,
    to_f32,
)


@device
def _tile_of(t, tokens):
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
def _quantize_group(x, codes, scale_at, start_at, stride, zero):
    """16 values to int8, to nearest even at max |x| / 127; their sum as quantized, and what rounding left.

    The scale is then fitted to the codes by least squares, which takes a sixteenth off the squared error.
    """
    peak = max_f32(absolute(x))
    inverse = float32(127.0) / peak if peak > float32(1e-30) else float32(0.0)
    q = round_to_i32(x * splat(inverse))
    scatter_words(codes, stride, q)
    whole = to_f32(q)
    energy = sum_f32(whole * whole)
    scale = sum_f32(x * whole) / energy if energy > float32(0.0) else float32(0.0)
    total = sum_i32(q)
    put_f32(scale_at, scale)
    put_i32(start_at, int32(-zero * int64(total)))
    return scale * float32(total), fma(whole, splat(-scale), x)


@device
def _quantize_block(low, high, place, block):
    """32 values of block `block`, into the row (or two) that `place` says."""
    codes, aux, n, nt, zero, planes = place
    codes += block * BLOCK * nt + 4 * n
    aux += block * AUX_WORDS * 4 * nt + 4 * n
    step = 4 * nt
    for _ in range(planes):
        low_sum, low = _quantize_group(
            low, codes, aux + AUX_SCALE_LOW * step, aux + AUX_START_LOW * step, step, zero
        )
        high_sum, high = _quantize_group(
            high, codes + 4 * step, aux + AUX_SCALE_HIGH * step, aux + AUX_START_HIGH * step, step, zero
        )
        put_f32(aux + AUX_SUM * step, low_sum + high_sum)
        codes += 4
        aux += 4


@device
def _place(args, t, tokens, columns):
    """Where token t's quantized rows begin (codes, aux, number in the tile, the tile's size); zero point;
    planes.
    """
    planes = get_i64(args + 8 * PW_PLANES)
    row = t * planes
    first, nt = _tile_of(row, tokens * planes)
    codes = get_i64(args + 8 * PW_CODES) + first * columns
    aux = get_i64(args + 8 * PW_AUX) + first * (columns // BLOCK) * AUX_WORDS * 4
    return codes, aux, row - first, nt, get_i64(args + 8 * PW_ZERO), planes


@kernel
def quantize(args, header, chunk, worker):
    """x -> quantized rows."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns = get_i64(args + 8 * PW_COLUMNS)
    for t in range(chunk * PW_CHUNK, min(tokens, (chunk + 1) * PW_CHUNK)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        place = _place(args, t, tokens, columns)
        for block in range(columns // BLOCK):
            _quantize_block(load_f32(x + 128 * block), load_f32(x + 128 * block + 64), place, block)


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
def _normed(x, y, weight, columns, eps):
    """One row: x / sqrt(mean(x^2) + eps) * weight -> y."""
    factor = float32(1.0) / sqrt(_mean_square(x, columns) + eps)
    for i in range(columns // LANES):
        store_f32(y + 64 * i, load_f32(x + 64 * i) * splat(factor) * load_f32(weight + 64 * i))
    for i in range(columns // LANES * LANES, columns):
        put_f32(y + 4 * i, get_f32(x + 4 * i) * factor * get_f32(weight + 4 * i))


@kernel
def head_norm(args, header, chunk, worker):
    """`rms_norm` of each head on its own, with one weight for all: rows of PW_HEADS times PW_COLUMNS."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns, heads = get_i64(args + 8 * PW_COLUMNS), get_i64(args + 8 * PW_HEADS)
    weight, eps = get_i64(args + 8 * PW_WEIGHT), get_f32(args + 8 * PW_EPS)
    for t in range(chunk * PW_CHUNK, min(tokens, (chunk + 1) * PW_CHUNK)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for h in range(heads):
            _normed(x + 4 * columns * h, y + 4 * columns * h, weight, columns, eps)


@kernel
def rms_norm(args, header, chunk, worker):
    """x / sqrt(mean(x^2) + eps) * weight, to f32 rows, to quantized rows, or to both."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT))
    columns = get_i64(args + 8 * PW_COLUMNS)
    weight, out = get_i64(args + 8 * PW_WEIGHT), get_i64(args + 8 * PW_Y)
    index = get_i64(args + 8 * PW_ROWS)
    for t in range(chunk * PW_CHUNK, min(tokens, (chunk + 1) * PW_CHUNK)):
        row = int64(get_i32(get_i64(header + 8 * index) + 4 * t)) if index != H_ONE else t
        x = get_i64(args + 8 * PW_X) + row * get_i64(args + 8 * PW_X_STRIDE)
        factor = float32(1.0) / sqrt(_mean_square(x, columns) + get_f32(args + 8 * PW_EPS))
        if get_i64(args + 8 * PW_CODES) != 0:
            place = _place(args, t, tokens, columns)
            for block in range(columns // BLOCK):
                low = load_f32(x + 128 * block) * splat(factor) * load_f32(weight + 128 * block)
                high = load_f32(x + 128 * block + 64) * splat(factor) * load_f32(weight + 128 * block + 64)
                _quantize_block(low, high, place, block)
        if out != 0:
            y = out + t * get_i64(args + 8 * PW_Y_STRIDE)
            _normed(x, y, weight, columns, get_f32(args + 8 * PW_EPS))


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
        for t in range(chunk * PW_CHUNK, min(tokens, (chunk + 1) * PW_CHUNK)):
            x = get_i64(args + 8 * PW_X) + t * stride
            x2 = get_i64(args + 8 * PW_X2) + t * stride
            if get_i64(args + 8 * PW_CODES) != 0:
                place = _place(args, t, tokens, columns)
                for block in range(columns // BLOCK):
                    low = activation(load_f32(x + 128 * block)) * load_f32(x2 + 128 * block)
                    high = activation(load_f32(x + 128 * block + 64)) * load_f32(x2 + 128 * block + 64)
                    _quantize_block(low, high, place, block)
            if out != 0:
                y = out + t * get_i64(args + 8 * PW_Y_STRIDE)
                for i in range(columns // LANES):
                    store_f32(y + 64 * i, activation(load_f32(x + 64 * i)) * load_f32(x2 + 64 * i))

    return glu


add_kernel("pointwise.glu_silu", _glu(_silu))
add_kernel("pointwise.glu_gelu_tanh", _glu(_gelu_tanh))


@device
def _vectors(args):
    """Vectors that a row takes; rows have room for whole ones."""
    return (get_i64(args + 8 * PW_COLUMNS) + LANES - 1) // LANES


@kernel
def add(args, header, chunk, worker):
    """x + x2, rows of one stride."""
    rows, stride = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT)), get_i64(args + 8 * PW_X_STRIDE)
    for t in range(chunk * PW_CHUNK, min(rows, (chunk + 1) * PW_CHUNK)):
        x, x2 = get_i64(args + 8 * PW_X) + t * stride, get_i64(args + 8 * PW_X2) + t * stride
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(_vectors(args)):
            store_f32(y + 64 * i, load_f32(x + 64 * i) + load_f32(x2 + 64 * i))


@kernel
def scale(args, header, chunk, worker):
    """x * the f32 in PW_EPS."""
    rows, factor = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT)), splat(get_f32(args + 8 * PW_EPS))
    for t in range(chunk * PW_CHUNK, min(rows, (chunk + 1) * PW_CHUNK)):
        x = get_i64(args + 8 * PW_X) + t * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(_vectors(args)):
            store_f32(y + 64 * i, load_f32(x + 64 * i) * factor)


@kernel
def gather(args, header, chunk, worker):
    """Output rows of x -> y. Columns are a multiple of 16."""
    rows, columns = get_i64(header + 8 * get_i64(args + 8 * PW_SLOT)), get_i64(args + 8 * PW_COLUMNS)
    for t in range(chunk * PW_CHUNK, min(rows, (chunk + 1) * PW_CHUNK)):
        row = int64(get_i32(get_i64(header + 8 * get_i64(args + 8 * PW_ROWS)) + 4 * t))
        x = get_i64(args + 8 * PW_X) + row * get_i64(args + 8 * PW_X_STRIDE)
        y = get_i64(args + 8 * PW_Y) + t * get_i64(args + 8 * PW_Y_STRIDE)
        for i in range(columns // LANES):
            store_f32(y + 64 * i, load_f32(x + 64 * i))
