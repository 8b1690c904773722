"""Attention over pages of keys and values.

A page holds 32 tokens of one layer. For each kv head in turn: keys transposed, then values:

      K [head_dim][32 tokens] f16   one vector is 16 tokens of one dimension: scores need no horizontal sums
      V [32 tokens][head_dim] f16   one vector is 16 dimensions of one token

Keys and values may each be f32, f16 or q8_0; the last has bytes so arranged, then f16 scales [blocks of 32
dimensions][32 tokens], for keys and for values alike.

Positions are cut at multiples of 256 into spans. A span is done in three passes: all its scores, the softmax
of each row of them, the weighted values. Then it joins what came before it by the rule of the online softmax:
with m the larger maximum, both sides are scaled by e^(their maximum - m) and added. The cuts are at absolute
positions, so a query's result does not depend on the rows computed beside it, nor on how its prompt was cut
into steps.

A chunk is one item and one kv head. An item is some consecutive rows of one sequence; its (row, query head)
pairs stand in register tiles, against 16 or 32 keys at a time. For few sequences with many keys an item is
one row and one span, so that there is work for every thread; `merge` then joins the spans, in order and by
the same rule, to the same bits.
"""

from __future__ import annotations

from edgellm.kernels.jit import ATTENTION_TILES, add_kernel, device, float32, int32, int64, kernel
from edgellm.kernels.layout import (
    AT_HEAD_DIM,
    AT_HEADS,
    AT_KEY_BYTES,
    AT_KV_HEADS,
    AT_OUT,
    AT_OUT_STRIDE,
    AT_PARTS,
    AT_POOL,
    AT_Q,
    AT_Q_STRIDE,
    AT_SCALE,
    AT_SCRATCH,
    AT_SCRATCH_STRIDE,
    AT_VALUE_BYTES,
    AT_WINDOW,
    H_ITEM_TABLE,
    H_MERGE_TABLE,
    IT_POSITION,
    IT_ROW,
    IT_ROWS,
    IT_SLOT,
    IT_SPAN,
    IT_TABLE,
    IT_WORDS,
    KV_BLOCK,
    KV_TYPES,
    LANES,
    ME_ROW,
    ME_SLOT,
    ME_SPANS,
    ME_WORDS,
    PAGE,
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
    load_i8,
    max_f32,
    maximum,
    put_f32,
    put_i64,
    scatter_f32,
    splat,
    splat_i32,
    store_f32,
    sum_f32,
    to_f32,
    where_at_most,
)
from edgellm.simd.tiles import (
    fetch_ahead,
    fma_splat,
    fma_vector,
    load_rows,
    scaled_sum,
    size,
    store_rows,
    zeros,
    zeros_like,
)

_LARGE, _SMALL = ATTENTION_TILES
_WIDE = _LARGE > 8  # whether there are registers for a small tile against two vectors at once
_FAR = float32(-1.0e30)  # a score that no exponential survives; finite, so that it subtracts from itself
_PAGES = SPAN // PAGE

# -- one span, one tile of NT pairs ----------------------------------------------------------------
# q [head_dim][NT], scores [NT][SPAN]; then rows of 16 f32, one for each pair: maximum and sum of the span,
# both of what came before, and the factors of both.
_PEAK, _TOTAL, _OLD_PEAK, _OLD_TOTAL, _NEW_FACTOR, _OLD_FACTOR = (64 * i for i in range(6))
_STATE_BYTES = 6 * 64


def _plain_scores(load, width):
    """scores(c, page, values, after, head_dim, q, out): a page's keys times the pairs' queries, 32 scores of
    each pair. The page's `values` and the keys of the page `after` it are fetched meanwhile.
    """

    @device
    def scores(c, page, values, after, head_dim, q, out):
        nt, row = size(c), PAGE * width
        if _WIDE and nt <= _SMALL:
            low, high = zeros_like(c), zeros_like(c)
            for d in range(head_dim):
                fetch_ahead(c, values + d * row, 1, 2)
                fetch_ahead(c, after + d * row, 1, 2)
                low = fma_splat(low, load(page + d * row), q + 4 * nt * d, 4)
                high = fma_splat(high, load(page + d * row + LANES * width), q + 4 * nt * d, 4)
            store_rows(low, out, 4 * SPAN)
            store_rows(high, out + 4 * LANES, 4 * SPAN)
        else:
            for half in range(2):
                acc = zeros_like(c)
                for d in range(head_dim):
                    acc = fma_splat(acc, load(page + d * row + half * LANES * width), q + 4 * nt * d, 4)
                store_rows(acc, out + 4 * LANES * half, 4 * SPAN)

    return scores


@device
def _scores_q8_0(c, page, values, after, head_dim, q, out):
    """The same for bytes with a scale for each key and 32 dimensions."""
    nt = size(c)
    for half in range(2):
        acc = zeros_like(c)
        for block in range(0, head_dim, KV_BLOCK):
            part = zeros_like(c)
            for d in range(block, min(block + KV_BLOCK, head_dim)):
                fetch_ahead(c, values + d * PAGE, 1, 2)
                fetch_ahead(c, after + d * PAGE, 1, 2)
                key = to_f32(load_i8(page + d * PAGE + half * LANES))
                part = fma_splat(part, key, q + 4 * nt * d, 4)
            scale = load_f16(page + head_dim * PAGE + 2 * (block // KV_BLOCK * PAGE + half * LANES))
            acc = fma_vector(acc, part, scale)
        store_rows(acc, out + 4 * LANES * half, 4 * SPAN)


@device
def _softmax(scores, count, last, window, peak_at, total_at):
    """Scores of one pair for `count` keys -> e^(score - their maximum), in place; maximum and sum. Keys after
    number `last`, or `window` before it, weigh nothing.
    """
    keys, far, top = lane_numbers(), splat(_FAR), splat(_FAR)
    for i in range(0, count, LANES):
        x = where_at_most(keys, splat_i32(int32(last - i)), load_f32(scores + 4 * i), far)
        if window > 0:
            x = where_at_most(keys, splat_i32(int32(last - window - i)), far, x)
        store_f32(scores + 4 * i, x)
        top = maximum(x, top)
    peak = max_f32(top)
    base = splat(peak if peak > _FAR / float32(2.0) else float32(0.0))
    total = splat(float32(0.0))
    for i in range(0, count, LANES):
        weight = exp(load_f32(scores + 4 * i) - base)
        store_f32(scores + 4 * i, weight)
        total = total + weight
    put_f32(peak_at, peak)
    put_f32(total_at, sum_f32(total))


@device
def _join(state):
    """Maximum and sum of the span join those of before; the factors that the values take."""
    new, old = load_f32(state + _PEAK), load_f32(state + _OLD_PEAK)
    peak = maximum(new, old)
    new_factor, old_factor = exp(new - peak), exp(old - peak)
    store_f32(state + _NEW_FACTOR, new_factor)
    store_f32(state + _OLD_FACTOR, old_factor)
    store_f32(state + _OLD_PEAK, peak)
    total = load_f32(state + _OLD_TOTAL) * old_factor
    store_f32(state + _OLD_TOTAL, fma(load_f32(state + _TOTAL), new_factor, total))


@device
def _keep(acc, values, head_dim, state):
    """Weighted values of the span join those of before, at `values` [NT][head_dim]."""
    old = load_rows(acc, values, 4 * head_dim)
    store_rows(scaled_sum(acc, state + _NEW_FACTOR, old, state + _OLD_FACTOR), values, 4 * head_dim)


@device
def _page_address(pages, number, table, page_bytes):
    return pages + int64(get_i32(table + 4 * number)) * page_bytes


@device
def _weights_plain(nt, pages, first, last, table, page_bytes, head_dim, dim, scores):
    """Where the weights stand that dimension `dim` of the values takes, [NT][SPAN]."""
    return scores


@device
def _weights_q8_0(nt, pages, first, last, table, page_bytes, head_dim, dim, scores):
    """The weights times the scales of the values' dimensions, once for all that share one."""
    scaled = scores + 4 * SPAN * nt
    if dim % KV_BLOCK == 0:
        for number in range(first, last):
            scales = _page_address(pages, number, table, page_bytes)
            scales += head_dim * PAGE + 2 * (dim // KV_BLOCK * PAGE)
            low, high = load_f16(scales), load_f16(scales + 2 * LANES)
            for r in range(nt):
                at = 4 * (SPAN * r + PAGE * (number - first))
                store_f32(scaled + at, load_f32(scores + at) * low)
                store_f32(scaled + at + 4 * LANES, load_f32(scores + at + 4 * LANES) * high)
    return scaled


@device
def _load_bytes(address):
    return to_f32(load_i8(address))


@device
def _values(
    c, pages, first, last, table, page_bytes, load, width, weights_of, head_dim, scores, values, state
):
    """Values of pages `first` to `last`, weighted, join those of before. `pages` is where page 0's stand."""
    row = head_dim * width
    whole = head_dim // (2 * LANES) * (2 * LANES) if _WIDE and size(c) <= _SMALL else 0
    for i in range(0, whole, 2 * LANES):
        low, high = zeros_like(c), zeros_like(c)
        base = weights_of(size(c), pages, first, last, table, page_bytes, head_dim, i, scores)
        for number in range(first, last):
            v = _page_address(pages, number, table, page_bytes) + i * width
            weights = base + 4 * PAGE * (number - first)
            for key in range(PAGE):
                low = fma_splat(low, load(v), weights + 4 * key, 4 * SPAN)
                high = fma_splat(high, load(v + LANES * width), weights + 4 * key, 4 * SPAN)
                v += row
        _keep(low, values + 4 * i, head_dim, state)
        _keep(high, values + 4 * (i + LANES), head_dim, state)
    for i in range(whole, head_dim, LANES):
        acc = zeros_like(c)
        base = weights_of(size(c), pages, first, last, table, page_bytes, head_dim, i, scores)
        for number in range(first, last):
            v = _page_address(pages, number, table, page_bytes) + i * width
            weights = base + 4 * PAGE * (number - first)
            for key in range(PAGE):
                acc = fma_splat(acc, load(v), weights + 4 * key, 4 * SPAN)
                v += row
        _keep(acc, values + 4 * i, head_dim, state)


# -- a chunk ----------------------------------------------------------------------------------------
# Its scratch: queries [tiles][head_dim][NT], values [pairs][head_dim], positions i64 [pairs] of pairs rounded
# up to whole tiles; a state for each tile; the scores of one.


@device
def _load_queries(args, q, positions, nt, tiles, first_row, count, position, kv_head, group):
    """Queries of the chunk's pairs, scaled and transposed by tiles; pairs that fill up the last tile
    repeat the last one.
    """
    head_dim, scale = get_i64(args + 8 * AT_HEAD_DIM), splat(get_f32(args + 8 * AT_SCALE))
    for j in range(tiles * nt):
        pair = min(j, count * group - 1)
        row, head = pair // group, kv_head * group + pair % group
        put_i64(positions + 8 * j, position + row)
        source = get_i64(args + 8 * AT_Q) + (first_row + row) * get_i64(args + 8 * AT_Q_STRIDE)
        source += 4 * head * head_dim
        target = q + 4 * (j // nt * nt * head_dim + j % nt)
        for d in range(0, head_dim, LANES):
            scatter_f32(target + 4 * nt * d, 4 * nt, load_f32(source + 4 * d) * scale)


@device
def _clear(values, count, state, tiles):
    nothing = splat(float32(0.0))
    for i in range(0, count, LANES):
        store_f32(values + 4 * i, nothing)
    for tile in range(tiles):
        for row in (_PEAK, _OLD_PEAK):
            store_f32(state + tile * _STATE_BYTES + row, splat(_FAR))
        for row in (_TOTAL, _OLD_TOTAL):
            store_f32(state + tile * _STATE_BYTES + row, nothing)


@device
def _attend(c, args, header, chunk, worker, scores_of, load, width, weights_of):
    """The whole chunk, with the tile size of `c`."""
    heads, kv_heads = get_i64(args + 8 * AT_HEADS), get_i64(args + 8 * AT_KV_HEADS)
    head_dim, window = get_i64(args + 8 * AT_HEAD_DIM), get_i64(args + 8 * AT_WINDOW)
    group, kv_head = heads // kv_heads, chunk % kv_heads
    item = get_i64(header + 8 * H_ITEM_TABLE) + 8 * IT_WORDS * (chunk // kv_heads)
    first_row, count = get_i64(item + 8 * IT_ROW), get_i64(item + 8 * IT_ROWS)
    position, table = get_i64(item + 8 * IT_POSITION), get_i64(item + 8 * IT_TABLE)
    span = get_i64(item + 8 * IT_SPAN)

    nt = size(c)
    tiles = (count * group + nt - 1) // nt
    pairs = tiles * nt
    q = get_i64(args + 8 * AT_SCRATCH) + worker * get_i64(args + 8 * AT_SCRATCH_STRIDE)
    values = q + 4 * pairs * head_dim
    positions = values + 4 * pairs * head_dim
    states = positions + 8 * pairs
    scores = states + tiles * _STATE_BYTES
    _load_queries(args, q, positions, nt, tiles, first_row, count, position, kv_head, group)
    _clear(values, pairs * head_dim, states, tiles)

    key_bytes, value_bytes = get_i64(args + 8 * AT_KEY_BYTES), get_i64(args + 8 * AT_VALUE_BYTES)
    page_bytes = kv_heads * (key_bytes + value_bytes)
    pages = get_i64(args + 8 * AT_POOL) + kv_head * (key_bytes + value_bytes)
    first = max(0, position - window + 1) // PAGE if window > 0 else 0
    end = (position + count - 1) // PAGE + 1
    if span >= 0:
        first, end = max(first, span * _PAGES), min(end, (span + 1) * _PAGES)
    start = first
    while first < end:
        cut = min(end, (first // _PAGES + 1) * _PAGES)
        for tile in range(tiles):
            at, state = tile * nt, states + tile * _STATE_BYTES
            last = min(cut, get_i64(positions + 8 * (at + nt - 1)) // PAGE + 1)
            if last <= first:
                continue
            for number in range(first, last):
                page = _page_address(pages, number, table, page_bytes)
                if number + 1 < end:
                    after = _page_address(pages, number + 1, table, page_bytes)
                else:  # the next chunk's first, most likely
                    after = _page_address(pages, start, table, page_bytes) + key_bytes + value_bytes
                row = scores + 4 * PAGE * (number - first)
                scores_of(c, page, page + key_bytes, after, head_dim, q + 4 * at * head_dim, row)
            for r in range(nt):
                newest = get_i64(positions + 8 * (at + r)) - first * PAGE
                _softmax(
                    scores + 4 * SPAN * r, (last - first) * PAGE, newest, window, state + _PEAK + 4 * r,
                    state + _TOTAL + 4 * r,
                )  # fmt: skip
            _join(state)
            _values(
                c, pages + key_bytes, first, last, table, page_bytes, load, width, weights_of, head_dim,
                scores, values + 4 * at * head_dim, state,
            )  # fmt: skip
        first = cut
    for j in range(count * group):
        state = states + j // nt * _STATE_BYTES + 4 * (j % nt)
        head = kv_head * group + j % group
        if span >= 0:
            part = _part(args, get_i64(item + 8 * IT_SLOT), head)
            put_f32(part, get_f32(state + _OLD_PEAK))
            put_f32(part + 4, get_f32(state + _OLD_TOTAL))
            for i in range(0, head_dim, LANES):
                store_f32(part + 64 + 4 * i, load_f32(values + 4 * (j * head_dim + i)))
        else:
            out = _out(args, first_row + j // group, head)
            _normalize(out, values + 4 * j * head_dim, get_f32(state + _OLD_TOTAL), head_dim)


@device
def _part(args, slot, head):
    """A span's result for one head: maximum, sum, and from byte 64 on the weighted values."""
    head_dim = get_i64(args + 8 * AT_HEAD_DIM)
    return get_i64(args + 8 * AT_PARTS) + (slot * get_i64(args + 8 * AT_HEADS) + head) * (64 + 4 * head_dim)


@device
def _out(args, row, head):
    head_dim = get_i64(args + 8 * AT_HEAD_DIM)
    return get_i64(args + 8 * AT_OUT) + row * get_i64(args + 8 * AT_OUT_STRIDE) + 4 * head_dim * head


@device
def _normalize(out, values, total, head_dim):
    inverse = splat(float32(1.0) / total)
    for i in range(0, head_dim, LANES):
        store_f32(out + 4 * i, load_f32(values + 4 * i) * inverse)


def _kernel(scores_of, load, width, weights_of):
    def attend(args, header, chunk, worker):
        kv_heads = get_i64(args + 8 * AT_KV_HEADS)
        item = get_i64(header + 8 * H_ITEM_TABLE) + 8 * IT_WORDS * (chunk // kv_heads)
        pairs = get_i64(item + 8 * IT_ROWS) * (get_i64(args + 8 * AT_HEADS) // kv_heads)
        if _LARGE > _SMALL and pairs > 2 * _SMALL:
            _attend(zeros(_LARGE), args, header, chunk, worker, scores_of, load, width, weights_of)
        else:
            _attend(zeros(_SMALL), args, header, chunk, worker, scores_of, load, width, weights_of)

    return attend


_KEYS = {"f32": _plain_scores(load_f32, 4), "f16": _plain_scores(load_f16, 2), "q8_0": _scores_q8_0}
_VALUES = {
    "f32": (load_f32, 4, _weights_plain),
    "f16": (load_f16, 2, _weights_plain),
    "q8_0": (_load_bytes, 1, _weights_q8_0),
}
for _k in KV_TYPES:
    for _v in KV_TYPES:
        add_kernel(f"attention.attend_{_k}_{_v}", _kernel(_KEYS[_k], *_VALUES[_v]))


@kernel
def merge(args, header, chunk, worker):
    """Spans of one row and one head, left to right."""
    heads, head_dim = get_i64(args + 8 * AT_HEADS), get_i64(args + 8 * AT_HEAD_DIM)
    entry = get_i64(header + 8 * H_MERGE_TABLE) + 8 * ME_WORDS * (chunk // heads)
    row, slot, head = get_i64(entry + 8 * ME_ROW), get_i64(entry + 8 * ME_SLOT), chunk % heads
    out = _out(args, row, head)
    peak, total = splat(_FAR), splat(float32(0.0))
    for i in range(0, head_dim, LANES):
        store_f32(out + 4 * i, splat(float32(0.0)))
    for s in range(slot, slot + get_i64(entry + 8 * ME_SPANS)):
        part = _part(args, s, head)
        new = splat(get_f32(part))
        both = maximum(new, peak)
        new_factor, old_factor = exp(new - both), exp(peak - both)
        total = fma(splat(get_f32(part + 4)), new_factor, total * old_factor)
        peak = both
        for i in range(0, head_dim, LANES):
            old = load_f32(out + 4 * i) * old_factor
            store_f32(out + 4 * i, fma(load_f32(part + 64 + 4 * i), new_factor, old))
    _normalize(out, out, first_lane(total), head_dim)
