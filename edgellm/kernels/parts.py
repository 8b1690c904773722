"""Prompts, where a panel's part does not go with one tile and be forgotten: it is unpacked for many tiles
(`wide.py`), or taken with the next panel's (`two_panels.py`). `mapped.py` goes so for any number of tokens.
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, PANELS_TOGETHER, SUMS_OF_PAIRS, device
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
    MM_TOKENS,
    MM_WEIGHTS,
    MM_X,
    MM_X_STRIDE,
    MM_Y,
    MM_Y_STRIDE,
    PART,
    WIDE_PANEL,
    WIDE_PIECE,
    WIDE_PIECES,
    WIDE_SCRATCH,
    WIDE_SUMS,
    WIDE_WHOLE,
)
from edgellm.kernels.outputs import (
    ALONE,
    PAIRS,
    SECOND,
    begin_sums,
    end_sums,
    fetch_residual,
    least_rows,
    passes_of,
    token_of,
    within,
)
from edgellm.simd.fetching import fetch_ahead
from edgellm.simd.ops import get_i64
from edgellm.simd.tiles import load_rows, pitch, store_rows, zeros, zeros_part

_FETCHED = 1024  # bytes of the next piece of a panel that are fetched with a tile
_SHARE = LARGEST_TILE // PANELS_TOGETHER  # rows of a tile that panels take together
_LONG = MM_TOKENS // 2  # rows, from which a piece may be a whole part


@device
def part_tile(c, panel, x_bytes, w, row, skip, rows, p, column, part, sums, stride, pieces, besides, args):
    """The tile's rows, from `row` on, with a part of panel p, or a piece of a part, which is at w: how many
    rows there were. Between parts their sums are at `sums`; between pieces each row's own at `pieces`: a
    second row's sum is added when its part is whole.

    A tile that is part of a larger one takes rows of it from number `skip` on; counted are the larger one's.
    `stride` is that of both kinds of sums: pieces are smaller than parts only where both are in the scratch.
    `besides` is what the panel wants besides: x's stride if that is f32, or where to fetch from.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    x_stride, y_stride = get_i64(args + 8 * MM_X_STRIDE), get_i64(args + 8 * MM_Y_STRIDE)
    x_step = x_bytes if x_bytes > 1 else pitch(c)
    x = get_i64(args + 8 * MM_X) + row * x_stride + column * x_step + 4 * skip
    aux_bytes = columns // BLOCK * AUX_WORDS * 4
    aux = get_i64(args + 8 * MM_AUX) + row * aux_bytes + (column // BLOCK * pitch(c) * AUX_WORDS + skip) * 4
    offset, at = (token_of(row, planes) + skip) * y_stride, p * LANES * 4
    passes, precise = passes_of(pitch(c), rows - row, planes), p >= get_i64(args + 8 * MM_PRECISE)
    begins, ends = column % PART == 0, column + part == columns or (column + part) % PART == 0
    bias = within(get_i64(args + 8 * MM_BIAS), at)
    residual = within(get_i64(args + 8 * MM_RESIDUAL), offset + at)
    for again in range(passes if precise else 1):
        kind = SECOND if again else PAIRS if planes > passes else ALONE
        over = column + part == columns and (again or passes == 1 or not precise)
        b, r = (bias, residual) if over else (0, 0)
        y, step = (get_i64(args + 8 * MM_Y) + offset + at, y_stride) if over else (sums, stride)
        fetch_residual(c, r, y_stride)
        out = begin_sums(c, sums, stride, column, kind) if begins else load_rows(c, pieces, stride)
        out = panel(out, w, x, aux, besides, part)
        if ends:
            end_sums(out, sums, stride, kind, precise, y, step, b, r)
        else:
            store_rows(out, pieces, stride)
        x += pitch(c) * x_stride
        aux += pitch(c) * aux_bytes
        pieces += stride * pitch(c)
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
def _together(p, end, precise):
    """How many panels go together, from panel p on: none goes with one that takes other rows."""
    return 1 if p + 1 == end or p + 1 == precise else PANELS_TOGETHER


@device
def _piece(columns, rows):
    """How many of a panel's columns are unpacked together, at most.

    To call a tile takes as long as one or two blocks, so with AVX2 prompts take 0.95 to 1.00 of the time with
    whole parts; but 12 or 16 rows 1.01 to 1.03: too few calls, and more leaves L1. Elsewhere not measured.
    """
    if SUMS_OF_PAIRS and rows >= _LONG:
        return PART
    return columns if columns <= WIDE_WHOLE else WIDE_PIECE


@device
def _wide_panels(c, worker, unpack, wide, block_columns, block_bytes, row, rows, p, last, args):
    """All full tiles from `row` on against panel p, or as many as go together: the row after them.

    Sums wait in the scratch: 64 tokens' rows of y are far apart, and would be many pages. The next pieces are
    fetched meanwhile, some of one with each share of a tile.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    scratch = get_i64(args + 8 * MM_SCRATCH) + worker * WIDE_SCRATCH
    weights, stride, reached = get_i64(args + 8 * MM_WEIGHTS), 4 * LANES * PANELS_TOGETHER, row
    piece = _piece(columns, rows - row)
    for column in range(0, columns, piece):
        part = min(piece, columns - column)
        for i in range(PANELS_TOGETHER):
            w = _piece_at(weights, p + i, column, columns, last, block_columns, block_bytes)
            unpack(w, scratch + WIDE_PANEL * i, part)
        next_p, next_column = p, column + piece
        if next_column >= columns:
            next_p, next_column = p + PANELS_TOGETHER, 0
        reached, fetched = row, 0
        while rows - reached >= least_rows(LARGEST_TILE, 1) * planes:
            sums = scratch + WIDE_SUMS + token_of(reached - row, planes) * stride
            pieces, taken = scratch + WIDE_PIECES + (reached - row) * stride, 0
            for i in range(PANELS_TOGETHER):
                ahead = _piece_at(weights, next_p + i, next_column, columns, last, block_columns, block_bytes)
                ahead, skip = ahead + fetched, _SHARE * i
                if PANELS_TOGETHER == 1:
                    for line in range(0, _FETCHED, 64):
                        fetch_ahead(c, ahead + line, LARGEST_TILE)
                taken = part_tile(
                    c, wide, 1, scratch, reached, skip, rows, p, column, part,
                    sums + skip * stride, stride, pieces + skip * stride, ahead, args,
                )  # fmt: skip
            fetched += _FETCHED
            reached += taken
    return reached


@device
def _panel(panel, block_columns, block_bytes, row, rows, p, last, args):
    """All full tiles from `row` on against panel p as it is: the row after them."""
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    weights, y_stride, reached = get_i64(args + 8 * MM_WEIGHTS), get_i64(args + 8 * MM_Y_STRIDE), row
    for column in range(0, columns, PART):
        part = min(PART, columns - column)
        w = _piece_at(weights, p, column, columns, last, block_columns, block_bytes)
        reached = row
        while rows - reached >= least_rows(LARGEST_TILE, 1) * planes:
            y = get_i64(args + 8 * MM_Y) + token_of(reached, planes) * y_stride + p * LANES * 4
            reached += part_tile(
                zeros(LARGEST_TILE), panel, 1, w, reached, 0, rows, p, column, part, y, y_stride, 0, 0, args
            )
    return reached


@device
def wide_tiles(worker, panel, unpack, wide, block_columns, block_bytes, row, rows, first, last, args):
    """All full tiles from `row` on, panel by panel or two by two, each piece unpacked once: the row after
    them.
    """
    p, reached, precise = first, row, get_i64(args + 8 * MM_PRECISE)
    while p < last:
        if PANELS_TOGETHER == 2 and _together(p, last, precise) == 1:
            reached = _panel(panel, block_columns, block_bytes, row, rows, p, last, args)
            p += 1
        else:
            reached = _wide_panels(
                zeros_part(_SHARE, PANELS_TOGETHER, LARGEST_TILE), worker, unpack, wide, block_columns,
                block_bytes, row, rows, p, last, args,
            )  # fmt: skip
            p += PANELS_TOGETHER
    return reached


@device
def tiles_of_two_panels(panel, pair, block_columns, block_bytes, row, rows, first, last, args):
    """All full tiles from `row` on, two panels at a time: the row after them.

    A part of four panels meets all tiles before the next part: four panels of 8192 columns are half a
    megabyte of Q8_0, and what is fetched meanwhile would be as much. So it is the next part, or the next
    chunk's first: two panels' in sixteen pieces, one with each half of eight tiles.
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
                y = get_i64(args + 8 * MM_Y) + token_of(reached, planes) * y_stride
                number, p, taken = token_of(reached, planes) // LARGEST_TILE % 8, group, 0
                while p < end:
                    w = _piece_at(weights, p, column, columns, last, block_columns, block_bytes)
                    sums, count = y + p * LANES * 4, _together(p, end, precise)
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
