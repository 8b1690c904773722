"""Rotary position embeddings, and the way of keys and values into their pages (`spans.py` draws one)."""

from __future__ import annotations

from edgellm.kernels.jit import add_kernel, device, float32, int64
from edgellm.kernels.layout import (
    H_APART,
    H_POSITIONS,
    H_ROW_PAGES,
    H_TOKENS,
    KV_BLOCK,
    KV_TYPES,
    LANES,
    PAGE,
    RS_DIMS,
    RS_HEAD_DIM,
    RS_HEADS,
    RS_K,
    RS_K_STRIDE,
    RS_KEY_BYTES,
    RS_KV_HEADS,
    RS_NEOX,
    RS_POOL,
    RS_Q,
    RS_Q_STRIDE,
    RS_TABLE,
    RS_V,
    RS_V_STRIDE,
    RS_VALUE_BYTES,
)
from edgellm.kernels.math import round_to_i32
from edgellm.kernels.shares import rows_of, share_of
from edgellm.simd.arithmetic import absolute, splat
from edgellm.simd.folds import max_f32
from edgellm.simd.interleaved import load_alternating, store_alternating
from edgellm.simd.ops import (
    get_f32,
    get_i32,
    get_i64,
    load_f32,
    put_f16,
    put_f32,
    scatter_f16,
    scatter_f32,
    scatter_i8,
    store_f16,
    store_f32,
    store_i8,
)


@device
def _turn(x, heads, head_dim, dims, neox, cos, sin):
    """Rope, in place, on `heads` heads at x."""
    half = dims // 2
    whole = half // LANES * LANES
    for h in range(heads):
        head = x + 4 * h * head_dim
        for i in range(0, whole, LANES):
            c, s = load_f32(cos + 4 * i), load_f32(sin + 4 * i)
            if neox:
                a, b = load_f32(head + 4 * i), load_f32(head + 4 * (i + half))
                store_f32(head + 4 * i, a * c - b * s)
                store_f32(head + 4 * (i + half), a * s + b * c)
            else:
                a, b = load_alternating(head + 8 * i, 0), load_alternating(head + 8 * i, 1)
                store_alternating(head + 8 * i, a * c - b * s, a * s + b * c)
        for i in range(whole, half):
            first = head + 4 * i if neox else head + 8 * i
            second = first + 4 * half if neox else first + 4
            a, b = get_f32(first), get_f32(second)
            c, s = get_f32(cos + 4 * i), get_f32(sin + 4 * i)
            put_f32(first, a * c - b * s)
            put_f32(second, a * s + b * c)


# -- how each type of cache takes a token's key or value of one head: 16 lanes at a time ---------------
# put(page, token, x, head_dim): x is f32 [head_dim], page the keys' or the values' part of a page.


@device
def _keys_f32(page, token, x, head_dim):
    for d in range(0, head_dim, LANES):
        scatter_f32(page + 4 * (d * PAGE + token), 4 * PAGE, load_f32(x + 4 * d))


@device
def _keys_f16(page, token, x, head_dim):
    for d in range(0, head_dim, LANES):
        scatter_f16(page + 2 * (d * PAGE + token), 2 * PAGE, load_f32(x + 4 * d))


@device
def _values_f32(page, token, x, head_dim):
    for d in range(0, head_dim, LANES):
        store_f32(page + 4 * (token * head_dim + d), load_f32(x + 4 * d))


@device
def _values_f16(page, token, x, head_dim):
    for d in range(0, head_dim, LANES):
        store_f16(page + 2 * (token * head_dim + d), load_f32(x + 4 * d))


@device
def _scale_q8(scales, token, x, block, head_dim):
    """Store the scale of dimensions `block` to `block` + 32 at most; its inverse."""
    peak = max_f32(absolute(load_f32(x + 4 * block)))
    if block + LANES < head_dim:
        peak = max(peak, max_f32(absolute(load_f32(x + 4 * (block + LANES)))))
    put_f16(scales + 2 * (block // KV_BLOCK * PAGE + token), peak / float32(127.0))
    return float32(127.0) / peak if peak > float32(1e-30) else float32(0.0)


@device
def _keys_q8_0(page, token, x, head_dim):
    scales = page + head_dim * PAGE
    for block in range(0, head_dim, KV_BLOCK):
        inverse = splat(_scale_q8(scales, token, x, block, head_dim))
        for d in range(block, min(block + KV_BLOCK, head_dim), LANES):
            scatter_i8(page + d * PAGE + token, PAGE, round_to_i32(load_f32(x + 4 * d) * inverse))


@device
def _values_q8_0(page, token, x, head_dim):
    scales = page + head_dim * PAGE
    for block in range(0, head_dim, KV_BLOCK):
        inverse = splat(_scale_q8(scales, token, x, block, head_dim))
        for d in range(block, min(block + KV_BLOCK, head_dim), LANES):
            store_i8(page + token * head_dim + d, round_to_i32(load_f32(x + 4 * d) * inverse))


@device
def _store(args, header, chunk, put_keys, put_values):
    tokens = get_i64(header + 8 * H_TOKENS)
    heads, kv_heads = get_i64(args + 8 * RS_HEADS), get_i64(args + 8 * RS_KV_HEADS)
    head_dim, dims = get_i64(args + 8 * RS_HEAD_DIM), get_i64(args + 8 * RS_DIMS)
    key_bytes, value_bytes = get_i64(args + 8 * RS_KEY_BYTES), get_i64(args + 8 * RS_VALUE_BYTES)
    neox = get_i64(args + 8 * RS_NEOX) != 0
    row, after = rows_of(header, chunk, tokens)
    if get_i64(header + 8 * H_APART) != 0:  # as attention divides them, among workers
        own, own_end = share_of(header, chunk, after - row)
        first, end = 0, kv_heads
    else:
        own, own_end = 0, after - row
        first, end = share_of(header, chunk, kv_heads)  # with the query heads that belong to them
    group = heads // kv_heads
    for t in range(row + own, row + own_end):
        position = int64(get_i32(get_i64(header + 8 * H_POSITIONS) + 4 * t))
        q = get_i64(args + 8 * RS_Q) + t * get_i64(args + 8 * RS_Q_STRIDE)
        k = get_i64(args + 8 * RS_K) + t * get_i64(args + 8 * RS_K_STRIDE)
        v = get_i64(args + 8 * RS_V) + t * get_i64(args + 8 * RS_V_STRIDE)
        if dims > 0:
            cos = get_i64(args + 8 * RS_TABLE) + position * dims * 4
            ours = q + 4 * head_dim * group * first
            _turn(ours, group * (end - first), head_dim, dims, neox, cos, cos + dims * 2)
            _turn(k + 4 * head_dim * first, end - first, head_dim, dims, neox, cos, cos + dims * 2)
        number = int64(get_i32(get_i64(header + 8 * H_ROW_PAGES) + 4 * t))
        page = get_i64(args + 8 * RS_POOL) + (number * kv_heads + first) * (key_bytes + value_bytes)
        for h in range(first, end):
            put_keys(page, position % PAGE, k + 4 * h * head_dim, head_dim)
            put_values(page + key_bytes, position % PAGE, v + 4 * h * head_dim, head_dim)
            page += key_bytes + value_bytes


def _kernel(put_keys, put_values):
    def turn_and_store(args, header, chunk, worker):
        _store(args, header, chunk, put_keys, put_values)

    return turn_and_store


for _k in KV_TYPES:
    for _v in KV_TYPES:
        _put = globals()[f"_keys_{_k}"], globals()[f"_values_{_v}"]
        add_kernel(f"rope.turn_and_store_{_k}_{_v}", _kernel(*_put))
