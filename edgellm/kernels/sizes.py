"""Tiles whose size is known when a kernel runs, not when it is compiled.

The loops around a tile are the same for all sizes. When they are compiled once, and not for each size, a
matmul takes a third less time to compile, or more, and has two thirds of the code.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.simd.tiles import zeros


def of_any_size(work, sizes):
    """work(tile, ...) as a function of (rows of the tile, ...), for a tile of zeros of one of these sizes."""
    largest, *others = sizes
    if not others:

        @device
        def only(nt, *args):
            return work(zeros(largest), *args)

        return only
    smaller = of_any_size(work, others)

    @device
    def sized(nt, *args):
        if nt == largest:
            return work(zeros(largest), *args)
        return smaller(nt, *args)

    return sized
