"""The products of `matmul.py` for weights that stay in their file.

A panel is packed into a worker's scratch, part by part, when it is needed, and thrown away: nothing of the
weights is kept, and the sums are bit for bit those of packed ones. Every token of the step takes the part
before the next one is packed.
"""

from __future__ import annotations

from edgellm.kernels import pack, panels
from edgellm.kernels.jit import LARGEST_TILE, TOKEN_TILES, add_kernel, device
from edgellm.kernels.layout import (
    FORMS,
    LANES,
    MM_COLUMNS,
    MM_PANELS,
    MM_PANELS_PER_CHUNK,
    MM_PLANES,
    MM_ROW_BYTES,
    MM_ROWS,
    MM_SCRATCH,
    MM_SLOT,
    MM_WEIGHTS,
    MM_X_STRIDE,
    MM_Y,
    MM_Y_STRIDE,
    PART,
)
from edgellm.kernels.outputs import fitting
from edgellm.kernels.parts import part_tile
from edgellm.kernels.sizes import of_any_size
from edgellm.simd.ops import get_i64


def _against(panel, x_bytes):
    """against(nt, w, ...): a part of panel p, which is at w, for a tile; sums wait in y. How many rows there
    were.
    """

    @device
    def against(c, w, row, rows, p, column, part, args):
        stride, x_stride = get_i64(args + 8 * MM_Y_STRIDE), get_i64(args + 8 * MM_X_STRIDE)
        y = get_i64(args + 8 * MM_Y) + row // get_i64(args + 8 * MM_PLANES) * stride + p * LANES * 4
        return part_tile(c, panel, x_bytes, w, row, 0, rows, p, column, part, y, stride, 0, x_stride, args)

    return of_any_size(against, TOKEN_TILES)


@device
def _matmul(args, header, chunk, worker, against, row_of_panel, block_columns, block_bytes, x_bytes):
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
            row, nt = 0, LARGEST_TILE
            while row < rows:
                nt = fitting(nt, rows - row, x_bytes, planes)
                row += against(nt, w, row, rows, p, column, part, args)


def _kernel(panel, row_of_panel, block_columns, block_bytes):
    x_bytes = 4 if block_columns == 1 else 1  # of an activation: plain weights take f32 rows
    against = _against(panel, x_bytes)

    def mapped(args, header, chunk, worker):
        _matmul(args, header, chunk, worker, against, row_of_panel, block_columns, block_bytes, x_bytes)

    return mapped


for _name, _block in FORMS.items():
    add_kernel(f"mapped.{_name}", _kernel(getattr(panels, _name), pack.ROWS[_name], *_block))
