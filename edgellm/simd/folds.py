"""Folds: the lanes of a row into one, always by the same tree, halves onto halves; so a row's bits are its
own, whether it is folded alone or among others.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types

from edgellm.simd import ops
from edgellm.simd.arithmetic import larger, magnitude, smaller
from edgellm.simd.elementwise import unary
from edgellm.simd.lowering import call, const, shuffle
from edgellm.simd.ops import load
from edgellm.simd.types import BYTES_IR, F32, F32_IR, I32, I32_IR, LANES

# -- one row -----------------------------------------------------------------------------------------


def _fold(combine, kind, scalar):
    """Fold 16 lanes into one."""

    def emit(b, x):
        width = LANES
        while width > 1:
            half = width // 2
            undefined = ir.Constant(x.type, ir.Undefined)
            x = combine(
                b, shuffle(b, x, undefined, range(half)), shuffle(b, x, undefined, range(half, width))
            )
            width = half
        return b.extract_element(x, ir.Constant(ir.IntType(32), 0))

    return unary(emit, scalar, kind)


def _sum(b, x, y):
    return b.fadd(x, y)


def _whole_sum(b, x, y):
    return b.add(x, y)


sum_f32 = _fold(_sum, F32, types.float32)
max_f32 = _fold(larger, F32, types.float32)
min_f32 = _fold(smaller, F32, types.float32)


# -- sixteen rows at once, from where they stand in memory -------------------------------------------


def _fold_all(b, vectors, combine):
    """Lane i is the fold of row i; as many lanes to a row as there are vectors. Two rows' halves make one
    vector, two such vectors' quarters the next, so that every shuffle serves 16 lanes.
    """
    width = len(vectors)
    while width > 1:
        half = width // 2
        lanes = [i for i in range(2 * LANES) if i % width < half]
        others = [i + half for i in lanes]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [combine(b, shuffle(b, x, y, lanes), shuffle(b, x, y, others)) for x, y in pairs]
        width = half
    return vectors[0]


def _fold_rows(combine, of_each=lambda b, x: x):
    """The fold of each row of 16 f32."""

    def emit(b, address):
        vectors = [of_each(b, load(b, address, F32_IR, 64 * i)) for i in range(LANES)]
        return _fold_all(b, vectors, combine)

    return unary(emit, F32, types.int64)


def _fold_bytes(products):
    """For each row of 16 signed bytes, none of them -128, the sum of `products` of them, four to a lane."""

    def emit(b, address):
        vectors = [products(b, load(b, address, BYTES_IR, 64 * i)) for i in range(4)]
        return _fold_all(b, vectors, _whole_sum)

    return unary(emit, I32, types.int64)


def _squares(b, x):
    sizes = call(b, "llvm.abs.v64i8", BYTES_IR, x, ir.Constant(ir.IntType(1), 0))
    return ops.target.dot4_lanes(b, ir.Constant(I32_IR, None), sizes, sizes)


def _once(b, x):
    return ops.target.dot4_lanes(b, ir.Constant(I32_IR, None), const(BYTES_IR, 1), x)


fold_sum = _fold_rows(_sum)
fold_peak = _fold_rows(larger, magnitude)  # the largest absolute value
square_sums = _fold_bytes(_squares)
byte_sums = _fold_bytes(_once)
