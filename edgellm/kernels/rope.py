"""Rotary position embeddings, and the way of keys and values into their pages (`attention.py` draws one)."""

from __future__ import annotations

from edgellm.kernels.jit import device, int64, kernel
from edgellm.kernels.layout import (
    H_POSITIONS,
    H_ROW_PAGES,
    H_TOKENS,
    LANES,
    PAGE,
    PW_CHUNK,
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
)
from edgellm.simd.ops import (
    get_f32,
    get_i32,
    get_i64,
    load_f32,
    put_f32,
    scatter_f16,
    scatter_f32,
    store_f16,
    store_f32,
)


@device
def _turn(x, heads, head_dim, dims, neox, cos, sin):
    """Rope, in place, on `heads` heads at x."""
    half = dims // 2
    for h in range(heads):
        head = x + 4 * h * head_dim
        whole = half // LANES * LANES if neox else 0
        for i in range(0, whole, LANES):
            a, b = load_f32(head + 4 * i), load_f32(head + 4 * (i + half))
            c, s = load_f32(cos + 4 * i), load_f32(sin + 4 * i)
            store_f32(head + 4 * i, a * c - b * s)
            store_f32(head + 4 * (i + half), a * s + b * c)
        for i in range(whole, half):
            first = head + 4 * i if neox else head + 8 * i
            second = first + 4 * half if neox else first + 4
            a, b = get_f32(first), get_f32(second)
            c, s = get_f32(cos + 4 * i), get_f32(sin + 4 * i)
            put_f32(first, a * c - b * s)
            put_f32(second, a * s + b * c)


@device
def _store(args, header, chunk, store_keys, store_values, width):
    tokens = get_i64(header + 8 * H_TOKENS)
    heads, kv_heads = get_i64(args + 8 * RS_HEADS), get_i64(args + 8 * RS_KV_HEADS)
    head_dim, dims = get_i64(args + 8 * RS_HEAD_DIM), get_i64(args + 8 * RS_DIMS)
    neox = get_i64(args + 8 * RS_NEOX) != 0
    for t in range(chunk * PW_CHUNK, min(tokens, (chunk + 1) * PW_CHUNK)):
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
def turn_and_store_f16(args, header, chunk, worker):
    _store(args, header, chunk, scatter_f16, store_f16, 2)


@kernel
def turn_and_store_f32(args, header, chunk, worker):
    _store(args, header, chunk, scatter_f32, store_f32, 4)
