"""Four rows of 16 numbers side by side: a transposition, by shuffles that each serve a whole vector."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd.lowering import shuffle
from edgellm.simd.ops import store
from edgellm.simd.types import F32, F32_IR, I64_IR, LANES

ROWS = 4
_UNDEFINED = ir.Constant(F32_IR, ir.Undefined)


def _quarters(*numbers):
    """For each quarter of a vector, lanes of two: those of these numbers there; from 4 on, of the second."""
    return [n % 4 + quarter + (LANES if n >= 4 else 0) for quarter in range(0, LANES, 4) for n in numbers]


@intrinsic
def store_columns(typing, address, stride, x, y, z, w):
    """Lane n of x, y, z and w at address + n * stride, side by side."""

    def emit(context, b, signature, args):
        base, step, *rows = args
        columns = {}
        for first, lanes in ((0, (0, 4, 1, 5)), (2, (2, 6, 3, 7))):
            low, high = (shuffle(b, *rows[i : i + 2], _quarters(*lanes)) for i in (0, 2))
            columns[first] = shuffle(b, low, high, _quarters(0, 1, 4, 5))
            columns[first + 1] = shuffle(b, low, high, _quarters(2, 3, 6, 7))
        for n in range(LANES):
            column = shuffle(b, columns[n % 4], _UNDEFINED, range(n // 4 * 4, n // 4 * 4 + 4))
            store(b, column, b.add(base, b.mul(step, ir.Constant(I64_IR, n))))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64, F32, F32, F32, F32), emit
