"""Attention over pages of keys and values.

A page holds 32 tokens of one layer. For each kv head in turn: keys transposed, then values:

      K [head_dim][32 tokens] f16      one vector is 16 tokens of one dimension: scores need no horizontal
      sums V [32 tokens][head_dim] f16      one vector is 16 dimensions of one token

Positions are cut at multiples of 256 into spans. Inside a span, pages go left to right with a running
maximum m, sum l and weighted values; then the span joins what came before it by the same rule. The cuts
are at absolute positions, so a query's result does not depend on the rows computed beside it, nor on how
its prompt was cut into steps.

A chunk is one item (consecutive rows of one sequence) and one kv head: its (row, query head) pairs, eight
at a time as a register tile against 16 keys, with all pages outside and tiles inside, so that a page is
read from memory once.
"""

from __future__ import annotations

from edgellm.kernels.jit import device, float32, int32, int64, kernel
from edgellm.kernels.layout import (
    AT_HEAD_DIM,
    AT_HEADS,
    AT_KV_HEADS,
    AT_OUT,
    AT_OUT_STRIDE,
    AT_POOL,
    AT_Q,
    AT_Q_STRIDE,
    AT_SCALE,
    AT_SCRATCH,
    AT_SCRATCH_STRIDE,
    AT_WINDOW,
    H_ITEM_TABLE,
    H_POSITIONS,
    H_ROW_PAGES,
    H_TOKENS,
    LANES,
    PAGE,
    RS_DIMS,
    RS_HEAD_DIM,
    RS_HEADS,
    RS_K,
    RS_K_STRIDE,
    RS_KV_HEADS,
    RS_NEOX,
    RS_POOL,
    RS_Q,
    RS_Q_STRIDE,
    RS_TABLE,
    RS_V,
    RS_V_STRIDE,
    SPAN,
)
from edgellm.kernels.math import exp
from edgellm.simd.ops import (
    first_lane,
    fma,
    get_f32,
    get_i32,
    get_i64,
    lane_numbers,
    load_f16,
    load_f32,
    max_f32,
    maximum,
    put_f32,
    put_i64,
    scatter_f16,
    scatter_f32,
    splat,
    splat_i32,
    store_f16,
    store_f32,
    sum_f32,
    where_at_most,
    where_less,
)
from edgellm.simd.tiles import fma_splat, load_rows, size, store_rows, times_splat, zeros, zeros_like

ROWS_PER_CHUNK = 8
_FAR = -1.0e30  # a score that no exponential survives; finite, so that it subtracts from itself


@device
def _turn(x, heads, head_dim, dims, neox, cos, sin):
    """Rope, in place, on `heads` heads at x."""
    half = dims // 2
    for h in range(heads):
        head = x + 4 * h * head_dim
        for i in range(half):
            first = head + 4 * i if neox else head + 8 * i
            second = first + 4 * half if neox else first + 4
            a, b = get_f32(first), get_f32(second)
            c, s = get_f32(cos + 4 * i), get_f32(sin + 4 * i)
            put_f32(first, a * c - b * s)
            put_f32(second, a * s + b * c)


@device
def _rope_store(args, header, chunk, store_keys, store_values, width):
    tokens = get_i64(header + 8 * H_TOKENS)
    heads, kv_heads = get_i64(args + 8 * RS_HEADS), get_i64(args + 8 * RS_KV_HEADS)
    head_dim, dims = get_i64(args + 8 * RS_HEAD_DIM), get_i64(args + 8 * RS_DIMS)
    neox = get_i64(args + 8 * RS_NEOX) != 0
    for t in range(chunk * ROWS_PER_CHUNK, min(tokens, (chunk + 1) * ROWS_PER_CHUNK)):
        position = int64(get_i32(get_i64(header + 8 * H_POSITIONS) + 4 * t))
        q = get_i64(args + 8 * RS_Q) + t * get_i64(args + 8 * RS_Q_STRIDE)
        k = get_i64(args + 8 * RS_K) + t * get_i64(args + 8 * RS_K_STRIDE)
        v = get_i64(args + 8 * RS_V) + t * get_i64(args + 8 * RS_V_STRIDE)
        if dims > 0:
            cos = get_i64(args + 8 * RS_TABLE) + position * dims * 4
            _turn(q, heads, head_dim, dims, neox, cos, cos + dims * 2)
            _turn(k, kv_heads, head_dim, dims, neox, cos, cos + dims * 2)
        page = int64(get_i32(get_i64(header + 8 * H_ROW_PAGES) + 4 * t))
        head_bytes = 2 * PAGE * head_dim * width
        base = get_i64(args + 8 * RS_POOL) + page * kv_heads * head_bytes
        for h in range(kv_heads):
            keys = base + h * head_bytes + position % PAGE * width
            values = base + h * head_bytes + PAGE * head_dim * width + position % PAGE * head_dim * width
            for i in range(head_dim // LANES):
                store_keys(
                    keys + i * LANES * PAGE * width,
                    PAGE * width,
                    load_f32(k + 4 * (h * head_dim + LANES * i)),
                )
                store_values(values + i * LANES * width, load_f32(v + 4 * (h * head_dim + LANES * i)))


@kernel
def rope_store_f16(args, header, chunk, worker):
    _rope_store(args, header, chunk, scatter_f16, store_f16, 2)


@kernel
def rope_store_f32(args, header, chunk, worker):
    _rope_store(args, header, chunk, scatter_f32, store_f32, 4)


# -- the scratch of one chunk -----------------------------------------------------------------------
# Arrays of f32 for `pairs` (row, query head) pairs, rounded up to whole tiles of NT:
#   q [tiles][head_dim][NT], p [NT][PAGE], alpha [NT]
#   peak, sum, and both once more for what came before the span: [pairs] each
#   weighted values [pairs][head_dim], for the span and for what came before it
# and the pairs' positions, i64 [pairs].


@device
def _row_softmax(p, peak, total, alpha, last, window):
    """Scores of one pair against a page -> weights, in place. Keys after `last`, or `window` before it,
    get none.
    """
    keys = lane_numbers()
    low, high = load_f32(p), load_f32(p + 4 * LANES)
    far = splat(float32(_FAR))
    limit = splat_i32(int32(last))
    high_limit = splat_i32(int32(last - LANES))
    low, high = where_at_most(keys, limit, low, far), where_at_most(keys, high_limit, high, far)
    if window > 0:
        low = where_at_most(keys, splat_i32(int32(last - window)), far, low)
        high = where_at_most(keys, splat_i32(int32(last - window - LANES)), far, high)
    old = get_f32(peak)
    new = max(old, max_f32(maximum(low, high)))
    nothing = splat(float32(_FAR / 2))
    zero = splat(float32(0.0))
    weights_low = where_less(low, nothing, zero, exp(low - splat(new)))
    weights_high = where_less(high, nothing, zero, exp(high - splat(new)))
    factor = first_lane(exp(splat(old - new)))
    store_f32(p, weights_low)
    store_f32(p + 4 * LANES, weights_high)
    put_f32(peak, new)
    put_f32(total, get_f32(total) * factor + sum_f32(weights_low + weights_high))
    put_f32(alpha, factor)


@device
def _page(c, page, load, width, head_dim, q, p, peak, total, values, positions, first_key, window):
    """One page against one tile of pairs: scores, running softmax, weighted values."""
    nt = size(c)
    low, high = zeros_like(c), zeros_like(c)
    for d in range(head_dim):
        low = fma_splat(low, load(page + d * PAGE * width), q + 4 * nt * d, 4)
        high = fma_splat(high, load(page + d * PAGE * width + LANES * width), q + 4 * nt * d, 4)
    store_rows(low, p, 4 * PAGE)
    store_rows(high, p + 4 * LANES, 4 * PAGE)
    alpha = p + 4 * PAGE * nt
    for r in range(nt):
        last = get_i64(positions + 8 * r) - first_key
        _row_softmax(p + 4 * PAGE * r, peak + 4 * r, total + 4 * r, alpha + 4 * r, last, window)
    v = page + PAGE * head_dim * width
    for i in range(head_dim // LANES):
        acc = times_splat(load_rows(c, values + 4 * LANES * i, 4 * head_dim), alpha)
        for key in range(PAGE):
            acc = fma_splat(acc, load(v + (key * head_dim + LANES * i) * width), p + 4 * key, 4 * PAGE)
        store_rows(acc, values + 4 * LANES * i, 4 * head_dim)


@device
def _reset(peak, total, values, pairs, head_dim):
    for r in range(pairs):
        put_f32(peak + 4 * r, float32(_FAR))
        put_f32(total + 4 * r, float32(0.0))
    for i in range(pairs * head_dim // LANES):
        store_f32(values + 64 * i, splat(float32(0.0)))


@device
def _merge(peak, total, values, peak2, total2, values2, pairs, head_dim):
    """The span (first three) joins what came before it (last three)."""
    for r in range(pairs):
        span, before = get_f32(peak + 4 * r), get_f32(peak2 + 4 * r)
        new = max(span, before)
        a, b = exp(splat(before - new)), exp(splat(span - new))
        put_f32(peak2 + 4 * r, new)
        put_f32(
            total2 + 4 * r, get_f32(total2 + 4 * r) * first_lane(a) + get_f32(total + 4 * r) * first_lane(b)
        )
        for i in range(head_dim // LANES):
            at = 4 * (r * head_dim + LANES * i)
            store_f32(values2 + at, fma(load_f32(values + at), b, load_f32(values2 + at) * a))


@device
def _load_queries(args, q, positions, nt, tiles, first_row, count, position, kv_head, group):
    """Queries of the chunk's pairs, scaled and transposed by tiles; pairs that fill up the last tile
    repeat the last one.
    """
    head_dim, scale = get_i64(args + 8 * AT_HEAD_DIM), get_f32(args + 8 * AT_SCALE)
    for j in range(tiles * nt):
        pair = min(j, count * group - 1)
        row, head = pair // group, kv_head * group + pair % group
        put_i64(positions + 8 * j, position + row)
        source = (
            get_i64(args + 8 * AT_Q)
            + (first_row + row) * get_i64(args + 8 * AT_Q_STRIDE)
            + 4 * head * head_dim
        )
        target = q + 4 * (j // nt * nt * head_dim + j % nt)
        for d in range(head_dim):
            put_f32(target + 4 * nt * d, get_f32(source + 4 * d) * scale)


@device
def _attend(c, args, header, chunk, worker, load, width):
    """The whole chunk, with the tile size of `c`."""
    heads, kv_heads = get_i64(args + 8 * AT_HEADS), get_i64(args + 8 * AT_KV_HEADS)
    head_dim, window = get_i64(args + 8 * AT_HEAD_DIM), get_i64(args + 8 * AT_WINDOW)
    group, kv_head = heads // kv_heads, chunk % kv_heads
    item = get_i64(header + 8 * H_ITEM_TABLE) + 32 * (chunk // kv_heads)
    first_row, count, position, table = (
        get_i64(item),
        get_i64(item + 8),
        get_i64(item + 16),
        get_i64(item + 24),
    )
    nt = size(c)
    tiles = (count * group + nt - 1) // nt
    pairs = tiles * nt

    q = get_i64(args + 8 * AT_SCRATCH) + worker * get_i64(args + 8 * AT_SCRATCH_STRIDE)
    p = q + 4 * pairs * head_dim
    peak = p + 4 * (PAGE + 1) * nt
    total, peak2, total2 = peak + 4 * pairs, peak + 8 * pairs, peak + 12 * pairs
    values = peak + 16 * pairs
    values2 = values + 4 * pairs * head_dim
    positions = values2 + 4 * pairs * head_dim
    _load_queries(args, q, positions, nt, tiles, first_row, count, position, kv_head, group)
    _reset(peak2, total2, values2, pairs, head_dim)

    head_bytes = 2 * PAGE * head_dim * width
    first = max(0, position - window + 1) // PAGE if window > 0 else 0
    last = (position + count - 1) // PAGE
    for i in range(first, last + 1):
        if i == first or i % (SPAN // PAGE) == 0:
            _reset(peak, total, values, pairs, head_dim)
        page = int64(get_i32(table + 4 * i)) * kv_heads + kv_head
        page = get_i64(args + 8 * AT_POOL) + page * head_bytes
        for tile in range(tiles):
            at = tile * nt
            if i * PAGE <= get_i64(positions + 8 * (at + nt - 1)):
                _page(
                    c, page, load, width, head_dim, q + 4 * at * head_dim, p, peak + 4 * at, total + 4 * at,
                    values + 4 * at * head_dim, positions + 8 * at, i * PAGE, window,
                )  # fmt: skip
        if i == last or (i + 1) % (SPAN // PAGE) == 0:
            _merge(peak, total, values, peak2, total2, values2, pairs, head_dim)
    for j in range(count * group):
        out = get_i64(args + 8 * AT_OUT) + (first_row + j // group) * get_i64(args + 8 * AT_OUT_STRIDE)
        out += 4 * head_dim * (kv_head * group + j % group)
        inverse = splat(float32(1.0) / get_f32(total2 + 4 * j))
        for i in range(head_dim // LANES):
            store_f32(out + 64 * i, load_f32(values2 + 4 * (j * head_dim + LANES * i)) * inverse)


@device
def _choose_tile(args, header, chunk, worker, load, width):
    item = get_i64(header + 8 * H_ITEM_TABLE) + 32 * (chunk // get_i64(args + 8 * AT_KV_HEADS))
    pairs = get_i64(item + 8) * (get_i64(args + 8 * AT_HEADS) // get_i64(args + 8 * AT_KV_HEADS))
    if pairs > 4:
        _attend(zeros(8), args, header, chunk, worker, load, width)
    else:
        _attend(zeros(4), args, header, chunk, worker, load, width)


@kernel
def attend_f16(args, header, chunk, worker):
    _choose_tile(args, header, chunk, worker, load_f16, 2)


@kernel
def attend_f32(args, header, chunk, worker):
    _choose_tile(args, header, chunk, worker, load_f32, 4)
