"""What a chunk of an op that goes row by row takes: PW_CHUNK rows; where a step has few, only a part of their
columns or heads, or some of them, so that no thread is idle. Nobody else writes to that part's cache lines.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import H_PARTS, PW_CHUNK
from edgellm.simd.ops import get_i64

COLUMNS = 64  # columns that are not divided


@device
def rows_of(header, chunk, rows):
    """The chunk's first row, and the row after its last."""
    first = chunk // get_i64(header + 8 * H_PARTS) * PW_CHUNK
    return first, min(rows, first + PW_CHUNK)


@device
def share_of(header, chunk, count):
    """Which of `count` heads or rows are the chunk's: the first, and the one after the last."""
    parts = get_i64(header + 8 * H_PARTS)
    each = (count + parts - 1) // parts
    first = min(count, chunk % parts * each)
    return first, min(count, first + each)


@device
def columns_of(header, chunk, columns):
    """Which of a row's columns are the chunk's: the first (a multiple of COLUMNS), the one after the last."""
    first, last = share_of(header, chunk, (columns + COLUMNS - 1) // COLUMNS)
    return first * COLUMNS, min(columns, last * COLUMNS)
