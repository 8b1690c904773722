"""Prompts, where a panel's part does not go with one tile and be forgotten: it is unpacked for many tiles
(`wide.py`), or taken with the next panel's (`two_panels.py`). `mapped.py` goes so for any number of tokens.
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, PANELS_TOGETHER, device
from edgellm.kernels.layout import (
    AUX_WORDS,
    BLOCK,
    GROUP,
    LANES,
    MM_AUX,
    MM_BIAS,
    MM_COLUMNS,
    MM_PLANES,
    MM_PRECISE,
    MM_RESIDUAL,
    MM_SCRATCH,
    MM_WEIGHTS,
    MM_X,
    MM_X_STRIDE,
    MM_Y,
    MM_Y_STRIDE,
    PART,
    WIDE_PIECE,
    WIDE_PIECES,
    WIDE_SCRATCH,
    WIDE_SUMS,
)
from edgellm.kernels.outputs import (
    ALONE,
    PAIRS,
    SECOND,
    begin_sums,
    end_sums,
    least_rows,
    passes_of,
    within,
)
from edgellm.simd.ops import get_i64
from edgellm.simd.tiles import fetch_ahead, fetch_rows, load_rows, pitch, store_rows, zeros, zeros_part

_FETCHED = 1024  # bytes of the next piece that are fetched with a tile
_SHARE = LARGEST_TILE // PANELS_TOGETHER  # rows of a tile of two panels


@device
def part_tile(c, panel, x_bytes, w, row, skip, rows, p, column, part, sums, stride, pieces, besides, args):
    """The tile's rows, from `row` on, with a part of panel p, or a piece of a part, which is at w: how many
    rows there were. Between parts their sums are at `sums`; between pieces each row's own at `pieces`: a
    second row's sum is added when its part is whole.

    A tile that is part of a larger one takes rows of it from number `skip` on; counted are the larger one's.
    `besides` is what the panel wants besides: x's stride if that is f32, where two panels fetch from.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    x_stride, y_stride = get_i64(args + 8 * MM_X_STRIDE), get_i64(args + 8 * MM_Y_STRIDE)
    x_step = x_bytes if x_bytes > 1 else pitch(c)
    x = get_i64(args + 8 * MM_X) + row * x_stride + column * x_step + 4 * skip
    aux_bytes = columns // BLOCK * AUX_WORDS * 4
    aux = get_i64(args + 8 * MM_AUX) + row * aux_bytes + (column // BLOCK * pitch(c) * AUX_WORDS + skip) * 4
    offset, at = (row // planes + skip) * y_stride, p * LANES * 4
    passes, precise = passes_of(pitch(c), rows - row, planes), p >= get_i64(args + 8 * MM_PRECISE)
    begins, ends = column % PART == 0, column + part == columns or (column + part) % PART == 0
    bias = within(get_i64(args + 8 * MM_BIAS), at)
    residual = within(get_i64(args + 8 * MM_RESIDUAL), offset + at)
    for again in range(passes if precise else 1):
        kind = SECOND if again else PAIRS if planes > passes else ALONE
        over = column + part == columns and (again or passes == 1 or not precise)
        b, r = (bias, residual) if over else (0, 0)
        y, step = (get_i64(args + 8 * MM_Y) + offset + at, y_stride) if over else (sums, stride)
        if r != 0:  # asked for now, it is there in the end
            fetch_rows(c, r, y_stride)
        out = begin_sums(c, sums, stride, column, kind) if begins else load_rows(c, pieces, 4 * LANES)
        out = panel(out, w, x, aux, besides, part)
        if ends:
            end_sums(out, sums, stride, kind, precise, y, step, b, r)
        else:
            store_rows(out, pieces, 4 * LANES)
        x += pitch(c) * x_stride
        aux += pitch(c) * aux_bytes
        pieces += 4 * LANES * pitch(c)
    return passes * pitch(c)


@device
def _piece_at(weights, p, column, columns, last, block_columns, block_bytes):
    """Where the columns of panel p from this one on are, up to the end of their part."""
    before = p * columns + column
    if columns > PART:
        group, part = p // GROUP * GROUP, column // PART * PART
        others = min(GROUP, last - group)
        before = group * columns + part * others + (p - group) * min(PART, columns - part) + column - part
    return weights + before // block_columns * block_bytes


@device
def wide_tiles(worker, unpack, wide, block_columns, block_bytes, row, rows, first, last, args):
    """All full tiles from `row` on, panel by panel, each piece unpacked once: the row after them.

    Sums wait in the scratch: 64 tokens' rows of y, at a stride that is often a power of two, would fall into
    the same few sets of a cache. The next piece is fetched meanwhile, some of it with each tile.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    scratch = get_i64(args + 8 * MM_SCRATCH) + worker * WIDE_SCRATCH
    sums = scratch + WIDE_SUMS
    weights = get_i64(args + 8 * MM_WEIGHTS)
    w = _piece_at(weights, first, 0, columns, last, block_columns, block_bytes)
    reached = row
    for p in range(first, last):
        for column in range(0, columns, WIDE_PIECE):
            part = min(WIDE_PIECE, columns - column)
            unpack(w, scratch, part)
            following = column + WIDE_PIECE < columns
            w = _piece_at(
                weights, p if following else p + 1, column + WIDE_PIECE if following else 0, columns, last,
                block_columns, block_bytes,
            )  # fmt: skip
            reached, ahead = row, w
            while rows - reached >= least_rows(LARGEST_TILE, 1) * planes:
                c = zeros(LARGEST_TILE)
                for line in range(0, _FETCHED, 64):
                    fetch_ahead(c, ahead + line, LARGEST_TILE)
                ahead += _FETCHED
                tokens, pieces = (
                    (reached - row) // planes,
                    scratch + WIDE_PIECES + (reached - row) * 4 * LANES,
                )
                reached += part_tile(
                    c, wide, 1, scratch, reached, 0, rows, p, column, part,
                    sums + tokens * 4 * LANES, 4 * LANES, pieces, 0, args,
                )  # fmt: skip
    return reached


@device
def tiles_of_two_panels(panel, pair, block_columns, block_bytes, row, rows, first, last, args):
    """All full tiles from `row` on, two panels at a time: the row after them.

    A part of four panels meets all tiles before the next part: L2 would not keep four rows of 8192 bytes for
    16 rows each. Meanwhile what follows is fetched, the next part or the next chunk's first: two panels' in
    sixteen pieces, one with each half of eight tiles.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    y_stride, precise = get_i64(args + 8 * MM_Y_STRIDE), get_i64(args + 8 * MM_PRECISE)
    weights, least = get_i64(args + 8 * MM_WEIGHTS), least_rows(LARGEST_TILE, 1) * planes
    reached = row
    for group in range(first, last, GROUP):
        end = min(group + GROUP, last)
        for column in range(0, columns, PART):
            part = min(PART, columns - column)
            part_bytes = part // block_columns * block_bytes
            reached = row
            while rows - reached >= least:
                y = get_i64(args + 8 * MM_Y) + reached // planes * y_stride
                number, p, taken = reached // planes // LARGEST_TILE % 8, group, 0
                while p < end:
                    w = _piece_at(weights, p, column, columns, last, block_columns, block_bytes)
                    sums, count = y + p * LANES * 4, 1 if p + 1 == end or p + 1 == precise else 2
                    if count == 1:
                        taken = part_tile(
                            zeros(LARGEST_TILE), panel, 1, w, reached, 0, rows, p, column, part, sums,
                            y_stride, 0, 0, args,
                        )  # fmt: skip
                    else:
                        ahead = w + (end - group) * part_bytes + 2 * number * (part_bytes // 8)
                        for skip in range(0, LARGEST_TILE, _SHARE):
                            taken = part_tile(
                                zeros_part(_SHARE, 2, LARGEST_TILE), pair, 1, w, reached, skip, rows, p,
                                column, part, sums + skip * y_stride, y_stride, 0, ahead, args,
                            )  # fmt: skip
                            ahead += part_bytes // 8
                    p += count
                reached += taken
    return reached
