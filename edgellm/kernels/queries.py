"""What attention reads and writes besides keys and values: a chunk's queries, by tiles of pairs, and its rows
of the output.

A prompt's rows are mostly in L3, and a chunk's stand in short pieces far apart, which no hardware foresees: a
core would wait for them for a tenth of an early chunk's time. So while the softmax of the first span is made,
pair by pair, each pair's piece of the output and of the next chunk's queries is asked for.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import (
    AT_HEAD_DIM,
    AT_HEADS,
    AT_KV_HEADS,
    AT_OUT,
    AT_OUT_STRIDE,
    AT_Q,
    AT_Q_STRIDE,
    AT_SCALE,
    IT_POSITION,
    IT_ROW,
    IT_ROWS,
    LANES,
)
from edgellm.kernels.math import LOG2_E
from edgellm.simd.arithmetic import splat
from edgellm.simd.columns import ROWS, store_columns
from edgellm.simd.fetching import fetch_ahead
from edgellm.simd.ops import get_f32, get_i64, load_f32, put_i64, scatter_f32
from edgellm.simd.tiles import zeros


@device
def load_queries(args, item, kv_head, q, positions, sources, nt, tiles):
    """Queries of the chunk's pairs, scaled and transposed by tiles, [tiles][head_dim][nt]; pairs that fill up
    the last tile repeat the last one. With log2 e in their scale, scores are exponents of 2. Positions,
    i64 [pairs]; where the queries stand, too.
    """
    head_dim, scale = get_i64(args + 8 * AT_HEAD_DIM), splat(get_f32(args + 8 * AT_SCALE) * LOG2_E)
    group = get_i64(args + 8 * AT_HEADS) // get_i64(args + 8 * AT_KV_HEADS)
    position, count = get_i64(item + 8 * IT_POSITION), get_i64(item + 8 * IT_ROWS)
    row, head = 0, 0
    for j in range(tiles * nt):
        put_i64(positions + 8 * j, position + row)
        put_i64(sources + 8 * j, _query(args, item, row, kv_head * group + head))
        if head + 1 < group:
            head += 1
        elif row + 1 < count:
            row, head = row + 1, 0
    step = 1 if nt % ROWS else ROWS  # pairs that are transposed together
    for j in range(0, tiles * nt, step):
        target, source = q + 4 * (j // nt * nt * head_dim + j % nt), sources + 8 * j
        for at in range(0, 4 * head_dim, 4 * LANES):
            x = load_f32(get_i64(source) + at) * scale
            if step == ROWS:
                y, z = load_f32(get_i64(source + 8) + at) * scale, load_f32(get_i64(source + 16) + at) * scale
                w = load_f32(get_i64(source + 24) + at) * scale
                store_columns(target + nt * at, 4 * nt, x, y, z, w)
            else:
                scatter_f32(target + nt * at, 4 * nt, x)


@device
def _query(args, item, row, head):
    """Where the query of an item's row stands."""
    at = (get_i64(item + 8 * IT_ROW) + row) * get_i64(args + 8 * AT_Q_STRIDE)
    return get_i64(args + 8 * AT_Q) + at + 4 * get_i64(args + 8 * AT_HEAD_DIM) * head


@device
def place_of_out(args, row, head):
    """Where a row of the output begins for one head."""
    at = row * get_i64(args + 8 * AT_OUT_STRIDE)
    return get_i64(args + 8 * AT_OUT) + at + 4 * get_i64(args + 8 * AT_HEAD_DIM) * head


@device
def fetch_pair(args, item, kv_head, next_item, next_head, pair, group):
    """Ask for a pair's piece of the output, and for the query of the next chunk's."""
    row, head = pair // group, pair % group
    out = place_of_out(args, get_i64(item + 8 * IT_ROW) + row, kv_head * group + head)
    query = _query(args, next_item, row, next_head * group + head)
    for at in range(0, 4 * get_i64(args + 8 * AT_HEAD_DIM), 64):
        fetch_ahead(zeros(1), out + at, 1)
        fetch_ahead(zeros(1), query + at, 1)
