"""From a tile's sums to y: which rows belong to a token, where sums wait, bias and residual.

A row's sums go to y as soon as they are whole, a cache line for each row and panel. For few rows of a large y
they wait for 64 panels in a worker's own room: a Xeon's core that reads weights from memory at 19 GB/s, and
after each panel writes a line in each of four places, reads 15.6; with runs of lines, 18.5. So do those of a
chunk that another worker may take over (`standing_in.py`).
"""

from __future__ import annotations

from edgellm.kernels.jit import LARGEST_TILE, device
from edgellm.kernels.layout import LANES, MM_Y_STRIDE
from edgellm.kernels.quantize import APART, spare
from edgellm.simd.fetching import fetch_ahead, fetch_rows, fetch_to_write
from edgellm.simd.ops import get_i64, load_f32, store_f32
from edgellm.simd.tiles import (
    add_row,
    add_rows,
    load_pairs,
    load_rows,
    pair_firsts,
    pair_sums,
    store_rows,
    zeros,
    zeros_like,
)

MANY = 3 * LARGEST_TILE  # rows of a chunk, from which its weights are mostly read from a cache
WAITING = 64  # panels whose sums wait together
SUMS_STRIDE = (WAITING + 1) * LANES * 4  # bytes from row to row of them: no two rows share a set of a cache
SUMS = SUMS_STRIDE * LARGEST_TILE
_MUCH = 1 << 17  # bytes of y, few of which L2 still has when the next layer writes them


@device
def _finish(out, y, stride, bias, residual):
    """Bias and residual, where there are any, then to memory: a panel's rows for each token, at y."""
    if bias != 0:
        out = add_row(out, bias)
    if residual != 0:
        out = add_rows(out, residual, stride)
    store_rows(out, y, stride)


# How the rows of a tile belong to tokens: each to one of its own; rows 2n and 2n + 1 to one; or each is the
# second row of one whose first has been added up in y already.
ALONE, PAIRS, SECOND = range(3)


@device
def least_rows(size, x_bytes):
    """How many rows a tile of this size is taken for: quantized ones may lack one (`quantize.tile_of`)."""
    return size - spare(size) if x_bytes == 1 else size


@device
def fitting(nt, rows, x_bytes, planes):
    """The next tile's size, nt or less, where so many rows are left. One of eight rows takes eight tokens."""
    while rows < least_rows(nt, x_bytes) * (planes if nt == 8 else 1):
        nt //= 2
    return nt


@device
def token_of(row, planes):
    """The token that a row belongs to, which has one or two: a division would be waited for."""
    return row >> (planes - 1)


@device
def passes_of(count, rows, planes):
    """How many tiles one after the other take the rows of `count` tokens: two where the first rows fill one,
    and the second rows the next.
    """
    return 2 if planes == 2 and count >= APART and rows >= 2 * least_rows(count, 1) else 1


@device
def fetch_residual(c, residual, stride):
    """Ask for what a tile's sums will be added to, if anything: as a panel begins, to be there in the end."""
    if residual != 0:
        fetch_rows(c, residual, stride)


@device
def begin_sums(c, sums, stride, column, kind):
    """The sums so far of rows at `sums`: none before the first part; a second row's are in the first's."""
    if column == 0 or kind == SECOND:
        return zeros_like(c)
    return load_pairs(c, sums, stride) if kind == PAIRS else load_rows(c, sums, stride)


@device
def end_sums(out, sums, stride, kind, precise, y, y_stride, bias, residual):
    """A panel's sums to y, what was at `sums` before included; `precise` if second rows count."""
    if kind == PAIRS:
        _finish(pair_sums(out) if precise else pair_firsts(out), y, y_stride, bias, residual)
    else:
        if kind == SECOND:
            out = add_rows(out, sums, stride)
        _finish(out, y, y_stride, bias, residual)


@device
def within(address, at):
    """Bytes `at` of what is at `address`, if anything is."""
    return address + at if address != 0 else 0


@device
def waits(args, rows):
    """Whether so many rows' sums wait for 64 panels: few rows of much. Tiles of two rows have two places."""
    return LARGEST_TILE > 2 and 1 < rows < MANY and rows * get_i64(args + 8 * MM_Y_STRIDE) >= _MUCH


@device
def fetch_for_hand_over(first, last, rows, y, y_stride, residual):
    """Ask for what `hand_over` will write and add: a burst of lines that other cores may have."""
    for row in range(rows):
        for at in range(row * y_stride + first * LANES * 4, row * y_stride + last * LANES * 4, LANES * 4):
            fetch_to_write(y + at)
            if residual != 0:
                fetch_ahead(zeros(1), residual + at, 1)


@device
def hand_over(sums, first, last, rows, y, y_stride, bias, residual):
    """Sums of panels `first` to `last` to y, row by row, with bias and residual, where they are not 0."""
    for row in range(rows):
        for at in range(first * LANES * 4, last * LANES * 4, LANES * 4):
            out = load_f32(sums + row * SUMS_STRIDE + at)
            if bias != 0:
                out = out + load_f32(bias + at)
            if residual != 0:
                out = out + load_f32(residual + row * y_stride + at)
            store_f32(y + row * y_stride + at, out)
