"""Attention over pages of keys and values.

Positions are cut at multiples of 256 into spans. A span is done in three passes: all its scores, the softmax
of each row of them, the weighted values. Then it joins what came before it by the rule of the online softmax:
with m the larger maximum, both sides are scaled by 2^(their maximum - m) and added, as scores are exponents
of 2 here. The cuts are at absolute positions, so a query's result does not depend on the rows computed beside
it, nor on how its prompt was cut into steps.

A chunk is one item and one kv head. An item is some consecutive rows of one sequence; its (row, query head)
pairs stand in register tiles, against 16 or 32 keys at a time. For few sequences with many keys an item is
one row and one span, so that there is work for every thread; `merge` then joins the spans, in order and by
the same rule, to the same bits.
"""

from __future__ import annotations

from edgellm.kernels.jit import ATTENTION_TILES, add_kernel, device, float32, kernel
from edgellm.kernels.layout import (
    AT_HEAD_DIM,
    AT_HEADS,
    AT_KEY_BYTES,
    AT_KV_HEADS,
    AT_PARTS,
    AT_POOL,
    AT_SCRATCH,
    AT_SCRATCH_STRIDE,
    AT_VALUE_BYTES,
    AT_WINDOW,
    H_ITEM_TABLE,
    H_ITEMS,
    H_MERGE_TABLE,
    IT_POSITION,
    IT_ROW,
    IT_ROWS,
    IT_SLOT,
    IT_SPAN,
    IT_TABLE,
    IT_WORDS,
    KV_TYPES,
    LANES,
    ME_ROW,
    ME_SLOT,
    ME_SPANS,
    ME_WORDS,
    PAGE,
    SPAN,
)
from edgellm.kernels.math import exp2_of_negative
from edgellm.kernels.queries import fetch_pair, load_queries, place_of_out
from edgellm.kernels.sizes import of_any_size
from edgellm.kernels.spans import (
    ACROSS,
    FAR,
    FEW,
    LARGE,
    OLD_PEAK,
    OLD_TOTAL,
    PEAK,
    SMALL,
    STATE_BYTES,
    TOTAL,
    find_peak,
    join,
    load_bytes_f32,
    page_address,
    plain_scores,
    scores_q8_0,
    weigh,
    weighted_values,
    weights_plain,
    weights_q8_0,
)
from edgellm.simd.arithmetic import first_lane, fma, maximum, splat
from edgellm.simd.ops import get_f32, get_i64, load_f16, load_f32, put_f32, store_f32

_PAGES = SPAN // PAGE

# -- a chunk ----------------------------------------------------------------------------------------
# Its scratch: queries [tiles][head_dim][NT], values [pairs][head_dim] (at first where the queries come from),
# positions i64 [pairs] of pairs rounded up to whole tiles; a state for each tile; the scores of one.


@device
def _clear(values, count, state, tiles):
    nothing = splat(float32(0.0))
    for i in range(0, count, LANES):
        store_f32(values + 4 * i, nothing)
    for tile in range(tiles):
        for row in (PEAK, OLD_PEAK):
            store_f32(state + tile * STATE_BYTES + row, splat(FAR))
        for row in (TOTAL, OLD_TOTAL):
            store_f32(state + tile * STATE_BYTES + row, nothing)


@device
def _item_of(header, chunk, kv_heads):
    """The item that a chunk is one kv head of."""
    return get_i64(header + 8 * H_ITEM_TABLE) + 8 * IT_WORDS * (chunk // kv_heads)


@device
def _pages_of(item, window):
    """The first page that an item attends to, and the one after its last."""
    position, span = get_i64(item + 8 * IT_POSITION), get_i64(item + 8 * IT_SPAN)
    first = max(0, position - window + 1) // PAGE if window > 0 else 0
    end = (position + get_i64(item + 8 * IT_ROWS) - 1) // PAGE + 1
    if span >= 0:
        first, end = max(first, span * _PAGES), min(end, (span + 1) * _PAGES)
    return first, end


@device
def _after(args, header, chunk):
    """The chunk that this worker most likely takes next: its item, its kv head, and its keys."""
    kv_heads = get_i64(args + 8 * AT_KV_HEADS)
    head_bytes = get_i64(args + 8 * AT_KEY_BYTES) + get_i64(args + 8 * AT_VALUE_BYTES)
    chunk = min(chunk + 1, kv_heads * get_i64(header + 8 * H_ITEMS) - 1)
    item, kv_head = _item_of(header, chunk, kv_heads), chunk % kv_heads
    first, end = _pages_of(item, get_i64(args + 8 * AT_WINDOW))
    pages = get_i64(args + 8 * AT_POOL) + kv_head * head_bytes
    return item, kv_head, (pages, first, end, get_i64(item + 8 * IT_TABLE))


@device
def _attend(nt, args, header, chunk, worker, scores_of, join_values):
    """The whole chunk, with tiles of nt pairs."""
    heads, kv_heads = get_i64(args + 8 * AT_HEADS), get_i64(args + 8 * AT_KV_HEADS)
    head_dim, window = get_i64(args + 8 * AT_HEAD_DIM), get_i64(args + 8 * AT_WINDOW)
    group, kv_head = heads // kv_heads, chunk % kv_heads
    item = _item_of(header, chunk, kv_heads)
    count, table = get_i64(item + 8 * IT_ROWS), get_i64(item + 8 * IT_TABLE)

    tiles = (count * group + nt - 1) // nt
    pairs = tiles * nt
    q = get_i64(args + 8 * AT_SCRATCH) + worker * get_i64(args + 8 * AT_SCRATCH_STRIDE)
    values = q + 4 * pairs * head_dim
    positions = values + 4 * pairs * head_dim
    states = positions + 8 * pairs
    scores = states + tiles * STATE_BYTES
    load_queries(args, item, kv_head, q, positions, values, nt, tiles)
    _clear(values, pairs * head_dim, states, tiles)

    key_bytes, value_bytes = get_i64(args + 8 * AT_KEY_BYTES), get_i64(args + 8 * AT_VALUE_BYTES)
    page_bytes = kv_heads * (key_bytes + value_bytes)
    value_step = value_bytes * ACROSS * LANES // (PAGE * head_dim)
    pages = get_i64(args + 8 * AT_POOL) + kv_head * (key_bytes + value_bytes)
    begin, end = _pages_of(item, window)
    next_item, next_head, next_keys = _after(args, header, chunk)
    first = begin
    while first < end:
        cut = min(end, (first // _PAGES + 1) * _PAGES)
        ahead = (pages, cut, end, table) if cut < end else next_keys
        for tile in range(tiles):
            at, state = tile * nt, states + tile * STATE_BYTES
            newest_of_all = get_i64(positions + 8 * (at + nt - 1))
            last = min(cut, newest_of_all // PAGE + 1)
            if last <= first:
                continue
            for number in range(first, last):
                page = page_address(pages, number, table, page_bytes)
                row = scores + 4 * PAGE * (number - first)
                scores_of(nt, page, page + key_bytes, value_step, head_dim, q + 4 * at * head_dim, row)
            keys = min(last * PAGE, newest_of_all // LANES * LANES + LANES) - first * PAGE
            pairs_there = min(nt, count * group - at)
            for r in range(pairs_there):
                newest = get_i64(positions + 8 * (at + r)) - first * PAGE
                find_peak(scores + 4 * SPAN * r, keys, newest, window, state + PEAK + 4 * r)
            for r in range(pairs_there):  # apart: one maximum waits for itself while the next is found
                weigh(scores + 4 * SPAN * r, keys, get_f32(state + PEAK + 4 * r), state + TOTAL + 4 * r)
                if first == begin:
                    fetch_pair(args, item, kv_head, next_item, next_head, at + r, group)
            join(state)
            join_values(
                nt, pages + key_bytes, first, last, newest_of_all, table, page_bytes, head_dim, scores,
                values + 4 * at * head_dim, state, ahead, key_bytes,
            )  # fmt: skip
        first = cut
    _hand_out(args, item, nt, count, group, kv_head, states, values)


@device
def _hand_out(args, item, nt, count, group, kv_head, states, values):
    """The results of a chunk's pairs: rows of the output, or parts for `merge` where the item is one span."""
    head_dim, span = get_i64(args + 8 * AT_HEAD_DIM), get_i64(item + 8 * IT_SPAN)
    for j in range(count * group):
        state = states + j // nt * STATE_BYTES + 4 * (j % nt)
        head = kv_head * group + j % group
        if span >= 0:
            part = _part(args, get_i64(item + 8 * IT_SLOT), head)
            put_f32(part, get_f32(state + OLD_PEAK))
            put_f32(part + 4, get_f32(state + OLD_TOTAL))
            for i in range(0, head_dim, LANES):
                store_f32(part + 64 + 4 * i, load_f32(values + 4 * (j * head_dim + i)))
        else:
            out = place_of_out(args, get_i64(item + 8 * IT_ROW) + j // group, head)
            _normalize(out, values + 4 * j * head_dim, get_f32(state + OLD_TOTAL), head_dim)


@device
def _part(args, slot, head):
    """A span's result for one head: maximum, sum, and from byte 64 on the weighted values."""
    head_dim = get_i64(args + 8 * AT_HEAD_DIM)
    return get_i64(args + 8 * AT_PARTS) + (slot * get_i64(args + 8 * AT_HEADS) + head) * (64 + 4 * head_dim)


@device
def _normalize(out, values, total, head_dim):
    inverse = splat(float32(1.0) / total)
    for i in range(0, head_dim, LANES):
        store_f32(out + 4 * i, load_f32(values + 4 * i) * inverse)


def _kernel(scores_of, join_values):
    def attend(args, header, chunk, worker):
        kv_heads = get_i64(args + 8 * AT_KV_HEADS)
        item = _item_of(header, chunk, kv_heads)
        pairs = get_i64(item + 8 * IT_ROWS) * (get_i64(args + 8 * AT_HEADS) // kv_heads)
        places = (pairs + LARGE - 1) // LARGE * LARGE
        nt = FEW if pairs <= FEW else SMALL
        if 4 * pairs >= 3 * places:  # no more than a quarter of a tile is idle
            nt = LARGE
        _attend(nt, args, header, chunk, worker, scores_of, join_values)

    return attend


def _of_pairs(work):
    return of_any_size(work, sorted(set(ATTENTION_TILES), reverse=True))


_SCORES = {"f32": plain_scores(load_f32, 4), "f16": plain_scores(load_f16, 2), "q8_0": scores_q8_0}
_VALUES = {
    "f32": weighted_values(load_f32, 4, weights_plain),
    "f16": weighted_values(load_f16, 2, weights_plain),
    "q8_0": weighted_values(load_bytes_f32, 1, weights_q8_0),
}
for _k in KV_TYPES:
    for _v in KV_TYPES:
        add_kernel(f"attention.attend_{_k}_{_v}", _kernel(_of_pairs(_SCORES[_k]), _of_pairs(_VALUES[_v])))


@kernel
def merge(args, header, chunk, worker):
    """Spans of one row and one head, left to right."""
    heads, head_dim = get_i64(args + 8 * AT_HEADS), get_i64(args + 8 * AT_HEAD_DIM)
    entry = get_i64(header + 8 * H_MERGE_TABLE) + 8 * ME_WORDS * (chunk // heads)
    row, slot, head = get_i64(entry + 8 * ME_ROW), get_i64(entry + 8 * ME_SLOT), chunk % heads
    out = place_of_out(args, row, head)
    peak, total = splat(FAR), splat(float32(0.0))
    for i in range(0, head_dim, LANES):
        store_f32(out + 4 * i, splat(float32(0.0)))
    for s in range(slot, slot + get_i64(entry + 8 * ME_SPANS)):
        part = _part(args, s, head)
        new = splat(get_f32(part))
        both = maximum(new, peak)
        new_factor, old_factor = exp2_of_negative(new - both), exp2_of_negative(peak - both)
        total = fma(splat(get_f32(part + 4)), new_factor, total * old_factor)
        peak = both
        for i in range(0, head_dim, LANES):
            old = load_f32(out + 4 * i) * old_factor
            store_f32(out + 4 * i, fma(load_f32(part + 64 + 4 * i), new_factor, old))
    _normalize(out, out, first_lane(total), head_dim)
