"""One span of attention for one tile of pairs: scores, softmax, weighted values.

A page holds 32 tokens of one layer. For each kv head in turn: keys transposed, then values:

      K [head_dim][32 tokens] f16   one vector is 16 tokens of one dimension: scores need no horizontal sums
      V [32 tokens][head_dim] f16   one vector is 16 dimensions of one token

Keys and values may each be f32, f16 or q8_0; the last has bytes so arranged, then f16 scales [blocks of 32
dimensions][32 tokens], for keys and for values alike.

A tile is NT pairs of a row and a query head: q [head_dim][NT], scores [NT][SPAN]; then its state, rows of
16 f32, one for each pair: maximum and sum of the span, both of what came before, and the factors of both.
"""

from __future__ import annotations

from edgellm.kernels.jit import ATTENTION_TILES, REQUESTS, device, float32, int32, int64
from edgellm.kernels.layout import KV_BLOCK, LANES, PAGE, SPAN
from edgellm.kernels.math import exp2_of_negative
from edgellm.simd.arithmetic import fma, lane_numbers, maximum, splat, splat_i32, to_f32, where_at_most
from edgellm.simd.fetching import fetch_ahead
from edgellm.simd.folds import max_f32, sum_f32
from edgellm.simd.ops import get_i32, load_f16, load_f32, load_i8, put_f32, store_f32
from edgellm.simd.tiles import (
    beside,
    fma_row,
    fma_splat,
    load_rows,
    scaled_sum,
    size,
    store_rows,
    zeros_across,
    zeros_like,
)

LARGE, SMALL, FEW = ATTENTION_TILES  # pairs of a tile
# Vectors of keys, or of dimensions, that a tile meets at once: each of a pair's numbers is loaded once for
# all of them. A vector is one register of AVX-512, and two or four of others, which is enough.
ACROSS = 2 if LARGE > 8 else 1
# Whether plain numbers are asked for, as bytes always are. With AVX2 only cores that ask for a single token's
# weights, too (`targets.requests`): a Xeon's takes 1.7 times as long when it does not.
_ASKS = ACROSS == 2 or REQUESTS[0] == 1
FAR = float32(-1.0e30)  # a score that no exponential survives; finite, so that it subtracts from itself
PEAK, TOTAL, OLD_PEAK, OLD_TOTAL, NEW_FACTOR, OLD_FACTOR = (64 * i for i in range(6))
STATE_BYTES = 6 * 64


@device
def load_bytes_f32(address):
    return to_f32(load_i8(address))


def _several(load, width):
    """`load` for as many vectors as a tile meets at once, `width` bytes a number."""
    if ACROSS == 1:
        return load

    @device
    def both(address):
        return beside(load(address), load(address + LANES * width))

    return both


def plain_scores(load, width):
    """scores(c, page, values, step, head_dim, q, out): a page's keys times the pairs' queries, 32 scores of
    each pair. The page's `values` are asked for meanwhile, `step` bytes with each number of a query.
    """
    keys = _several(load, width)

    @device
    def scores(c, page, values, step, head_dim, q, out):
        row = PAGE * width
        for first in range(0, PAGE, ACROSS * LANES):
            acc = zeros_across(c, ACROSS)
            for d in range(head_dim):
                if _ASKS:
                    fetch_ahead(c, values, 2)
                    values += step
                acc = fma_splat(acc, keys(page + d * row + first * width), q + 4 * size(c) * d, 4)
            store_rows(acc, out + 4 * first, 4 * SPAN)

    return scores


_byte_keys = _several(load_bytes_f32, 1)
_key_scales = _several(load_f16, 2)


@device
def scores_q8_0(c, page, values, step, head_dim, q, out):
    """The same for bytes with a scale for each key and 32 dimensions."""
    for first in range(0, PAGE, ACROSS * LANES):
        acc = zeros_across(c, ACROSS)
        for block in range(0, head_dim, KV_BLOCK):
            part = zeros_like(acc)
            for d in range(block, min(block + KV_BLOCK, head_dim)):
                fetch_ahead(c, values, 2)
                values += step
                part = fma_splat(part, _byte_keys(page + d * PAGE + first), q + 4 * size(c) * d, 4)
            scales = page + head_dim * PAGE + 2 * (block // KV_BLOCK * PAGE + first)
            acc = fma_row(acc, part, _key_scales(scales))
        store_rows(acc, out + 4 * first, 4 * SPAN)


@device
def find_peak(scores, count, last, window, peak_at):
    """The largest of one pair's scores for `count` keys. Keys after number `last`, or `window` before it,
    weigh nothing: their scores become FAR.
    """
    keys, far, top = lane_numbers(), splat(FAR), splat(FAR)
    whole = 0 if window > 0 else max(0, min(count, (last + 1) // LANES * LANES))  # keys that all weigh
    for i in range(0, whole, LANES):
        top = maximum(load_f32(scores + 4 * i), top)
    for i in range(whole, count, LANES):
        x = where_at_most(keys, splat_i32(int32(last - i)), load_f32(scores + 4 * i), far)
        if window > 0:
            x = where_at_most(keys, splat_i32(int32(last - window - i)), far, x)
        store_f32(scores + 4 * i, x)
        top = maximum(x, top)
    put_f32(peak_at, max_f32(top))


@device
def weigh(scores, count, peak, total_at):
    """One pair's scores -> 2^(score - peak), in place; their sum."""
    base = splat(peak if peak > FAR / float32(2.0) else float32(0.0))
    total = splat(float32(0.0))
    for i in range(0, count, LANES):
        weight = exp2_of_negative(load_f32(scores + 4 * i) - base)
        store_f32(scores + 4 * i, weight)
        total = total + weight
    put_f32(total_at, sum_f32(total))


@device
def join(state):
    """Maximum and sum of the span join those of before; the factors that the values take."""
    new, old = load_f32(state + PEAK), load_f32(state + OLD_PEAK)
    peak = maximum(new, old)
    new_factor, old_factor = exp2_of_negative(new - peak), exp2_of_negative(old - peak)
    store_f32(state + NEW_FACTOR, new_factor)
    store_f32(state + OLD_FACTOR, old_factor)
    store_f32(state + OLD_PEAK, peak)
    total = load_f32(state + OLD_TOTAL) * old_factor
    store_f32(state + OLD_TOTAL, fma(load_f32(state + TOTAL), new_factor, total))


@device
def _keep(acc, values, head_dim, state):
    """Weighted values of the span join those of before, at `values` [NT][head_dim]."""
    old = load_rows(acc, values, 4 * head_dim)
    store_rows(scaled_sum(acc, state + NEW_FACTOR, old, state + OLD_FACTOR), values, 4 * head_dim)


@device
def page_address(pages, number, table, page_bytes):
    return pages + int64(get_i32(table + 4 * number)) * page_bytes


@device
def _keys_ahead(ahead, i, page_bytes):
    """Page i of the keys that are wanted next, or the last one."""
    pages, first, end, table = ahead
    return page_address(pages, min(first + i, end - 1), table, page_bytes)


@device
def weights_plain(nt, pages, first, last, table, page_bytes, head_dim, dim, scores):
    """Where the weights stand that dimension `dim` of the values takes, [NT][SPAN]."""
    return scores


@device
def weights_q8_0(nt, pages, first, last, table, page_bytes, head_dim, dim, scores):
    """The weights times the scales of the values' dimensions, once for all that share one."""
    scaled = scores + 4 * SPAN * nt
    if dim % KV_BLOCK == 0:
        for number in range(first, last):
            scales = page_address(pages, number, table, page_bytes)
            scales += head_dim * PAGE + 2 * (dim // KV_BLOCK * PAGE)
            low, high = load_f16(scales), load_f16(scales + 2 * LANES)
            for r in range(nt):
                at = 4 * (SPAN * r + PAGE * (number - first))
                store_f32(scaled + at, load_f32(scores + at) * low)
                store_f32(scaled + at + 4 * LANES, load_f32(scores + at + 4 * LANES) * high)
    return scaled


def weighted_values(load, width, weights_of):
    """join_values(c, pages, first, last, newest, table, page_bytes, head_dim, scores, values, state, ahead,
    key_bytes): values of pages `first` to `last`, weighted, join those of before. `pages` is where page 0's
    stand. Keys after number `newest` weigh nothing, and are not read. Keys `ahead`, those of the next span or
    chunk, `key_bytes` a page, are asked for meanwhile: address of page 0, first page, end, page table.
    """
    several, asks = _several(load, width), _ASKS or width == 1

    @device
    def sum_of(
        acc, load_row, pages, first, last, newest, table, page_bytes, row, weights, ahead, asked, step
    ):  # fmt: skip
        for number in range(first, last):
            v = page_address(pages, number, table, page_bytes)
            weight = weights + 4 * PAGE * (number - first)
            keys = _keys_ahead(ahead, number - first, page_bytes) + asked
            for key in range(min(PAGE, newest + 1 - PAGE * number)):
                if asks:
                    fetch_ahead(acc, keys, 2)
                    keys += step
                acc = fma_splat(acc, load_row(v), weight + 4 * key, 4 * SPAN)
                v += row
        return acc

    @device
    def join_values(
        c, pages, first, last, newest, table, page_bytes, head_dim, scores, values, state, ahead, key_bytes
    ):  # fmt: skip
        nt, row, across = size(c), head_dim * width, ACROSS * LANES
        whole = head_dim // across * across
        for i in range(0, whole, across):
            weights = weights_of(nt, pages, first, last, table, page_bytes, head_dim, i, scores)
            acc = sum_of(
                zeros_across(c, ACROSS), several, pages + i * width, first, last, newest, table, page_bytes,
                row, weights, ahead, key_bytes * i // head_dim, key_bytes * across // (head_dim * PAGE),
            )  # fmt: skip
            _keep(acc, values + 4 * i, head_dim, state)
        for i in range(whole, head_dim, LANES):
            weights = weights_of(nt, pages, first, last, table, page_bytes, head_dim, i, scores)
            acc = sum_of(
                zeros_like(c), load, pages + i * width, first, last, newest, table, page_bytes,
                row, weights, ahead, key_bytes * i // head_dim, key_bytes * LANES // (head_dim * PAGE),
            )  # fmt: skip
            _keep(acc, values + 4 * i, head_dim, state)

    return join_values
