"""Matrix products y = x w^T. By far the most time of all is spent in the loops of this file.

Weights stand in panels of 16 rows, packed so that memory is read strictly forward. One step of the inner
loop takes 16 rows by 4 columns of a panel, and NT tokens:

                 4 columns (bytes)                        token 0 .. NT-1
              +----+----+----+----+                   +----+----+----+----+
      row  0  | w0 | w1 | w2 | w3 |  one vector of    | x0 | x1 | x2 | x3 |  4 bytes of one token,
      row  1  |    |    |    |    |  64 bytes         +----+----+----+----+  broadcast to all 16 lanes
        ..    |    |    |    |    |        dot4                 |
      row 15  |    |    |    |    |  ------------>   i32 accumulator of 16 rows, one for each token

Activations have a scale for each 16 columns, so a block of 32 has two i32 sums, both exact. Then, in this
order and for tiles of every size, t = f32(low) * low_scale; t = fma(f32(high), high_scale, t); c = fma(t,
w_scale, c). Blocks go in order along K. So an output's bits do not depend on NT, on the chunk it came in,
or on the thread.

A chunk is a run of panels for 64 tokens: tokens outside, panels inside, so that the panels stay in L2. Chunks
that follow each other have the same panels.

Rows of more than 1024 columns are taken in parts, four panels at a time: first the four panels' columns 0 to
1023, then the next. A part of the activations then stays in L1 while the weights stream by; with a whole row
of 8192, one token reads Q4_K at 23 GB/s instead of 35. Between parts the sums wait in y.
"""

from __future__ import annotations

from edgellm.kernels import panels
from edgellm.kernels.jit import LARGEST_TILE, add_kernel, device
from edgellm.kernels.layout import (
    AUX_WORDS,
    BLOCK,
    FORMS,
    GROUP,
    LANES,
    MM_AUX,
    MM_BIAS,
    MM_COLUMNS,
    MM_PANELS,
    MM_PANELS_PER_CHUNK,
    MM_PLANES,
    MM_PRECISE,
    MM_RESIDUAL,
    MM_SLOT,
    MM_TOKENS,
    MM_WEIGHTS,
    MM_X,
    MM_X_STRIDE,
    MM_Y,
    MM_Y_STRIDE,
    PART,
)
from edgellm.simd.ops import (
    get_i64,
    load_f32,
)
from edgellm.simd.tiles import (
    add_rows,
    add_vector,
    load_pairs,
    load_rows,
    pair_firsts,
    pair_sums,
    size,
    store_rows,
    zeros,
    zeros_like,
)

# -- a chunk: token tiles outside, panels inside ---------------------------------------------------


@device
def _finish(out, y, at, y_stride, bias, residual):
    """Bias and residual, then to memory: panel rows at byte `at` of each token's row."""
    if bias != 0:
        out = add_vector(out, load_f32(bias + at))
    if residual != 0:
        out = add_rows(out, residual + at, y_stride)
    store_rows(out, y + at, y_stride)


# How the rows of a tile belong to tokens: each to one of its own; rows 2n and 2n + 1 to one; or each is the
# second row of one whose first has been added up in y already.
ALONE, PAIRS, SECOND = range(3)


@device
def passes_of(count, rows, planes):
    """How many tiles one after the other take the rows of `count` tokens: two where the first rows fill one,
    and the second rows the next.
    """
    return 2 if planes == 2 and count == LARGEST_TILE and rows >= 2 * count else 1


@device
def begin(c, y, y_stride, column, kind):
    """The sums so far of rows at y: none before the first part; a second row's are in the first's."""
    if column == 0 or kind == SECOND:
        return zeros_like(c)
    return load_pairs(c, y, y_stride) if kind == PAIRS else load_rows(c, y, y_stride)


@device
def end(out, y, at, y_stride, kind, precise, bias, residual):
    """Sums of a panel to y; `precise` if second rows count."""
    if kind == PAIRS:
        _finish(pair_sums(out) if precise else pair_firsts(out), y, at, y_stride, bias, residual)
    else:
        if kind == SECOND:
            out = add_rows(out, y + at, y_stride)
        _finish(out, y, at, y_stride, bias, residual)


@device
def _tile(c, panel, block_columns, block_bytes, x_bytes, row, rows, first, last, args):
    """Rows from `row` on, as many as the tile `c` gives, or twice as many; panels `first` to `last`. How many
    rows there were.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    x_stride, y_stride = get_i64(args + 8 * MM_X_STRIDE), get_i64(args + 8 * MM_Y_STRIDE)
    x = get_i64(args + 8 * MM_X) + row * x_stride
    x_step = x_bytes if x_bytes > 1 else size(c)
    aux_step = AUX_WORDS * 4 * size(c)
    aux = get_i64(args + 8 * MM_AUX) + row * (columns // BLOCK) * AUX_WORDS * 4
    w = get_i64(args + 8 * MM_WEIGHTS) + first * (columns // block_columns) * block_bytes
    offset = row // planes * y_stride
    y = get_i64(args + 8 * MM_Y) + offset
    bias, residual = get_i64(args + 8 * MM_BIAS), get_i64(args + 8 * MM_RESIDUAL)
    if residual != 0:
        residual += offset
    precise = get_i64(args + 8 * MM_PRECISE)
    passes = passes_of(size(c), rows - row, planes)
    for group in range(first, last, GROUP):
        end_of_group = min(group + GROUP, last)
        for column in range(0, columns, PART):
            part = min(PART, columns - column)
            part_bytes = part // block_columns * block_bytes
            x_part, aux_part = x + column * x_step, aux + column // BLOCK * aux_step
            for again in range(passes):
                kind = SECOND if again else PAIRS if planes > passes else ALONE
                for p in range(max(group, precise) if again else group, end_of_group):
                    at, twice = p * LANES * 4, p >= precise
                    over = column + part == columns and (again or passes == 1 or not twice)
                    out = begin(c, y + at, y_stride, column, kind)
                    out = panel(out, w + (p - group) * part_bytes, x_part, aux_part, x_stride, part)
                    end(out, y, at, y_stride, kind, twice, bias if over else 0, residual if over else 0)
                x_part += size(c) * x_stride
                aux_part += columns // BLOCK * aux_step
            w += (end_of_group - group) * part_bytes
    return passes * size(c)


@device
def _matmul(args, header, chunk, panel, block_columns, block_bytes, x_bytes):
    tokens = get_i64(header + 8 * get_i64(args + 8 * MM_SLOT))
    planes, per_chunk = get_i64(args + 8 * MM_PLANES), get_i64(args + 8 * MM_PANELS_PER_CHUNK)
    blocks = (tokens + MM_TOKENS - 1) // MM_TOKENS
    first = chunk // blocks * per_chunk
    last = min(first + per_chunk, get_i64(args + 8 * MM_PANELS))
    row = chunk % blocks * MM_TOKENS * planes
    rows = min(tokens * planes, row + MM_TOKENS * planes)
    if LARGEST_TILE >= 8:
        while rows - row >= 8:
            row += _tile(zeros(8), panel, block_columns, block_bytes, x_bytes, row, rows, first, last, args)
    if LARGEST_TILE >= 4:
        while rows - row >= 4:
            row += _tile(zeros(4), panel, block_columns, block_bytes, x_bytes, row, rows, first, last, args)
    while rows - row >= 2:
        row += _tile(zeros(2), panel, block_columns, block_bytes, x_bytes, row, rows, first, last, args)
    if row < rows:
        _tile(zeros(1), panel, block_columns, block_bytes, x_bytes, row, rows, first, last, args)


def _kernel(panel, block_columns, block_bytes):
    x_bytes = 4 if block_columns == 1 else 1  # of an activation: plain weights take f32 rows

    def matmul(args, header, chunk, worker):
        _matmul(args, header, chunk, panel, block_columns, block_bytes, x_bytes)

    return matmul


for _name, _block in FORMS.items():
    add_kernel(f"matmul.{_name}", _kernel(getattr(panels, _name), *_block))
