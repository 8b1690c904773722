"""The products of `matmul.py` for weights that stay in their file.

A panel is packed into a worker's scratch, part by part, when it is needed, and thrown away: nothing of the
weights is kept, and the sums are bit for bit those of packed ones. Every token of the step takes the part
before the next one is packed.
"""

from __future__ import annotations

from edgellm.kernels import pack, panels
from edgellm.kernels.jit import LARGEST_TILE, add_kernel, device
from edgellm.kernels.layout import (
    AUX_WORDS,
    BLOCK,
    FORMS,
    LANES,
    MM_AUX,
    MM_BIAS,
    MM_COLUMNS,
    MM_PANELS,
    MM_PANELS_PER_CHUNK,
    MM_PLANES,
    MM_PRECISE,
    MM_RESIDUAL,
    MM_ROW_BYTES,
    MM_ROWS,
    MM_SCRATCH,
    MM_SLOT,
    MM_WEIGHTS,
    MM_X,
    MM_X_STRIDE,
    MM_Y,
    MM_Y_STRIDE,
    PART,
)
from edgellm.kernels.matmul import ALONE, PAIRS, SECOND, begin, end, passes_of
from edgellm.simd.ops import get_i64
from edgellm.simd.tiles import size, zeros


@device
def _tile(c, panel, x_bytes, w, row, rows, p, column, part, args):
    """Rows from `row` on, as `matmul` takes them; one part of panel p. How many rows there were."""
    columns, planes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_PLANES)
    x_stride, y_stride = get_i64(args + 8 * MM_X_STRIDE), get_i64(args + 8 * MM_Y_STRIDE)
    x_step = x_bytes if x_bytes > 1 else size(c)
    x = get_i64(args + 8 * MM_X) + row * x_stride + column * x_step
    aux_bytes = columns // BLOCK * AUX_WORDS * 4
    aux = get_i64(args + 8 * MM_AUX) + row * aux_bytes + column // BLOCK * size(c) * AUX_WORDS * 4
    offset, at = row // planes * y_stride, p * LANES * 4
    y, bias, residual = get_i64(args + 8 * MM_Y) + offset, 0, 0
    if column + part == columns:
        bias, residual = get_i64(args + 8 * MM_BIAS), get_i64(args + 8 * MM_RESIDUAL)
        if residual != 0:
            residual += offset
    passes, precise = passes_of(size(c), rows - row, planes), p >= get_i64(args + 8 * MM_PRECISE)
    for again in range(passes if precise else 1):
        kind = SECOND if again else PAIRS if planes > passes else ALONE
        over = again or passes == 1 or not precise
        out = panel(begin(c, y + at, y_stride, column, kind), w, x, aux, x_stride, part)
        end(out, y, at, y_stride, kind, precise, bias if over else 0, residual if over else 0)
        x += size(c) * x_stride
        aux += size(c) * aux_bytes
    return passes * size(c)


@device
def _matmul(args, header, chunk, worker, panel, row_of_panel, block_columns, block_bytes, x_bytes):
    planes, per_chunk = get_i64(args + 8 * MM_PLANES), get_i64(args + 8 * MM_PANELS_PER_CHUNK)
    rows = get_i64(header + 8 * get_i64(args + 8 * MM_SLOT)) * planes
    columns, row_bytes = get_i64(args + 8 * MM_COLUMNS), get_i64(args + 8 * MM_ROW_BYTES)
    part_bytes = row_bytes // (columns // block_columns)
    w = get_i64(args + 8 * MM_SCRATCH) + worker * (PART // block_columns * block_bytes)
    for p in range(chunk * per_chunk, min((chunk + 1) * per_chunk, get_i64(args + 8 * MM_PANELS))):
        source = get_i64(args + 8 * MM_WEIGHTS) + p * LANES * row_bytes
        for column in range(0, columns, PART):
            part = min(PART, columns - column)
            for r in range(min(LANES, get_i64(args + 8 * MM_ROWS) - p * LANES)):
                row_of_panel(source + r * row_bytes + column // block_columns * part_bytes, w, r, part)
            row = 0
            if LARGEST_TILE >= 8:
                while rows - row >= 8:
                    row += _tile(zeros(8), panel, x_bytes, w, row, rows, p, column, part, args)
            if LARGEST_TILE >= 4:
                while rows - row >= 4:
                    row += _tile(zeros(4), panel, x_bytes, w, row, rows, p, column, part, args)
            while rows - row >= 2:
                row += _tile(zeros(2), panel, x_bytes, w, row, rows, p, column, part, args)
            if row < rows:
                _tile(zeros(1), panel, x_bytes, w, row, rows, p, column, part, args)


def _kernel(panel, row_of_panel, block_columns, block_bytes):
    x_bytes = 4 if block_columns == 1 else 1  # of an activation: plain weights take f32 rows

    def mapped(args, header, chunk, worker):
        _matmul(args, header, chunk, worker, panel, row_of_panel, block_columns, block_bytes, x_bytes)

    return mapped


for _name, _block in FORMS.items():
    add_kernel(f"mapped.{_name}", _kernel(getattr(panels, _name), pack.ROWS[_name], *_block))
