"""Matrix products y = x w^T. By far the most time of all is spent below this file.

Weights stand in panels of 16 rows, packed so that memory is read strictly forward. One step of the inner
loop takes 16 rows by 4 columns of a panel, and NT tokens:

                 4 columns (bytes)                        token 0 .. NT-1
              +----+----+----+----+                   +----+----+----+----+
      row  0  | w0 | w1 | w2 | w3 |  one vector of    | x0 | x1 | x2 | x3 |  4 bytes of one token,
      row  1  |    |    |    |    |  64 bytes         +----+----+----+----+  broadcast to all 16 lanes
        ..    |    |    |    |    |        dot4                 |
      row 15  |    |    |    |    |  ------------>   i32 accumulator of 16 rows, one for each token

Activations have a scale for each 16 columns, so a block of 32 has two i32 sums, both exact. The scales'
ratio is a power of two, so what both make together is exact, too, but for one rounding to f32. Then, in this
order and for tiles of every size, t = f32(low * ratio + high) * scale; c = fma(t, w_scale, c). Blocks go in
order along K. So an output's bits do not depend on NT, on the chunk it came in, or on the thread.

A chunk is a run of panels for 64 tokens: tokens outside, panels inside, so that the panels stay in L2. Chunks
that follow each other have the same tokens: 64 of them are enough that weights may come from memory.

Rows of more than 1024 columns are taken in parts, four panels at a time: first the four panels' columns 0 to
1023, then the next. A part of the activations then stays in L1 while the weights stream by; with a whole row
of 8192, one token reads Q4_K at 23 GB/s instead of 35. Between parts the sums wait where they are to go
(`outputs.py`).

For many tokens it is panels outside, tokens inside, where taking codes apart costs more than loading bytes:
`wide.py` says for which forms. Where a core waits for loads it is two panels and four tokens at a time:
`two_panels.py`.
"""

from __future__ import annotations

from edgellm.kernels import panels
from edgellm.kernels.jit import LARGEST_TILE, TOKEN_TILES, add_kernel, device
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
from edgellm.kernels.outputs import (
    ALONE,
    MANY,
    PAIRS,
    SECOND,
    SUMS,
    SUMS_STRIDE,
    WAITING,
    begin_sums,
    end_sums,
    fetch_for_hand_over,
    fetch_residual,
    fitting,
    hand_over,
    passes_of,
    token_of,
    waits,
    within,
)
from edgellm.kernels.parts import tiles_of_two_panels, wide_tiles
from edgellm.kernels.sizes import of_any_size
from edgellm.kernels.standing_in import claim, offer
from edgellm.kernels.two_panels import TWO_PANELS
from edgellm.kernels.wide import WIDE
from edgellm.simd.ops import get_i64, opaque, room

# -- a chunk: token tiles outside, panels inside ---------------------------------------------------


def _against(panel):
    """against(nt, w, ...): so many columns of a panel, from `column` on, which are at w, against a tile of nt
    rows. Sums are at `sums`.
    """

    @device
    def against(c, w, x, aux, x_stride, columns, sums, stride, column, kind, twice, bias, residual):
        fetch_residual(c, residual, stride)
        out = panel(begin_sums(c, sums, stride, column, kind), w, x, aux, x_stride, columns)
        end_sums(out, sums, stride, kind, twice, sums, stride, bias, residual)

    return of_any_size(against, TOKEN_TILES)


@device
def _tile(
    nt, against, block_columns, block_bytes, x_bytes, row, rows, first, last, y, y_stride, bias, residual,
    args,
):  # fmt: skip
    """Rows from `row` on, `nt` or twice as many; panels `first` to `last`. The sums of the first of the rows
    go to y, bias and residual added where they are not 0; all three are where panel 0's are.
    """
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    x_stride, precise = get_i64(args + 8 * MM_X_STRIDE), get_i64(args + 8 * MM_PRECISE)
    x = get_i64(args + 8 * MM_X) + row * x_stride
    x_step = x_bytes if x_bytes > 1 else nt
    aux_step = AUX_WORDS * 4 * nt
    aux = get_i64(args + 8 * MM_AUX) + row * (columns // BLOCK) * AUX_WORDS * 4
    w = get_i64(args + 8 * MM_WEIGHTS) + first * (columns // block_columns) * block_bytes
    passes = passes_of(nt, rows - row, planes)
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
                    b, r = (within(bias, at), within(residual, at)) if over else (0, 0)
                    against(
                        nt, w + (p - group) * part_bytes, x_part, aux_part, x_stride, part, y + at, y_stride,
                        column, kind, twice, b, r,
                    )  # fmt: skip
                x_part += nt * x_stride
                aux_part += columns // BLOCK * aux_step
            w += (end_of_group - group) * part_bytes


@device
def _rows(
    nt, against, block_columns, block_bytes, x_bytes, row, rows, first, last, sums, args, header, worker
):  # fmt: skip
    """A tile's rows and all panels of the chunk; how many rows there were. Sums wait at `sums`, if not 0."""
    planes, y_stride = get_i64(args + 8 * MM_PLANES), get_i64(args + 8 * MM_Y_STRIDE)
    bias, offset = get_i64(args + 8 * MM_BIAS), token_of(row, planes) * y_stride
    y, residual = get_i64(args + 8 * MM_Y) + offset, within(get_i64(args + 8 * MM_RESIDUAL), offset)
    taken = passes_of(nt, rows - row, planes) * nt
    run = WAITING if sums else last - first
    for begin in range(first, last, run):
        end = min(begin + run, last)
        place, stride = (sums - begin * LANES * 4, SUMS_STRIDE) if sums else (y, y_stride)
        rows_out = token_of(min(taken, rows - row), planes)
        b, r = (0, 0) if sums else (bias, residual)
        if sums:
            fetch_for_hand_over(begin, end, rows_out, y, y_stride, residual)
        _tile(
            nt, against, block_columns, block_bytes, x_bytes, row, rows, begin, end, place, stride, b, r, args
        )  # fmt: skip
        # Opaque: LLVM would write down all loops twice, with sums that wait and without.
        if opaque(sums) and claim(header, worker):
            hand_over(place, begin, end, rows_out, y, y_stride, bias, residual)
    return taken


@device
def _extent(args, header, chunk):
    """A chunk's rows, from the first to the one after the last, and its panels."""
    tokens = get_i64(header + 8 * get_i64(args + 8 * MM_SLOT))
    planes, per_chunk = get_i64(args + 8 * MM_PLANES), get_i64(args + 8 * MM_PANELS_PER_CHUNK)
    panels = get_i64(args + 8 * MM_PANELS)
    runs = (panels + per_chunk - 1) // per_chunk
    first = chunk % runs * per_chunk
    last = min(first + per_chunk, panels)
    row = chunk // runs * MM_TOKENS * planes
    return row, min(tokens * planes, row + MM_TOKENS * planes), first, last


@device
def _tiles(
    against, block_columns, block_bytes, x_bytes, row, rows, first, last, offered, args, header, worker
):  # fmt: skip
    """Tiles of every size, the largest first."""
    sums = room(SUMS) if offered or waits(args, rows - row) else 0
    nt, planes = LARGEST_TILE, get_i64(args + 8 * MM_PLANES)
    while row < rows:
        nt = fitting(nt, rows - row, x_bytes, planes)
        row += _rows(
            nt, against, block_columns, block_bytes, x_bytes, row, rows, first, last, sums, args, header,
            worker,
        )  # fmt: skip


def _kernel(panel, block_columns, block_bytes):
    x_bytes = 4 if block_columns == 1 else 1  # of an activation: plain weights take f32 rows
    against = _against(panel)

    def matmul(args, header, chunk, worker):
        row, rows, first, last = _extent(args, header, chunk)
        offered = rows - row < MANY and offer(header, chunk, worker)
        _tiles(
            against, block_columns, block_bytes, x_bytes, row, rows, first, last, offered, args, header,
            worker,
        )  # fmt: skip

    return matmul


def _wide_kernel(panel, unpack, wide, block_columns, block_bytes):
    against = _against(panel)

    def matmul(args, header, chunk, worker):
        row, rows, first, last = _extent(args, header, chunk)
        offered = rows - row < MANY and offer(header, chunk, worker)
        if rows - row >= MANY:
            row = wide_tiles(
                worker, panel, unpack, wide, block_columns, block_bytes, row, rows, first, last, args
            )
        _tiles(
            against, block_columns, block_bytes, 1, row, rows, first, last, offered, args, header, worker
        )  # fmt: skip

    return matmul


def _two_panel_kernel(panel, pair, block_columns, block_bytes):
    against = _against(panel)

    def matmul(args, header, chunk, worker):
        row, rows, first, last = _extent(args, header, chunk)
        offered = rows - row < MANY and offer(header, chunk, worker)
        if rows - row >= MANY:
            row = tiles_of_two_panels(panel, pair, block_columns, block_bytes, row, rows, first, last, args)
        _tiles(
            against, block_columns, block_bytes, 1, row, rows, first, last, offered, args, header, worker
        )  # fmt: skip

    return matmul


def _made(name, panel, block):
    if name in WIDE:
        return _wide_kernel(panel, *WIDE[name], *block)
    if name in TWO_PANELS:
        return _two_panel_kernel(panel, TWO_PANELS[name], *block)
    return _kernel(panel, *block)


for _name, _block in FORMS.items():
    add_kernel(f"matmul.{_name}", _made(_name, getattr(panels, _name), _block))
