"""Products added by twos in 16 bits, and widened later (AVX2): `kernels/weighed.py` says what for."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.dots import products
from edgellm.simd.lowering import const
from edgellm.simd.tiles import each, number_for
from edgellm.simd.types import I32, I32_IR, I64_IR, WORDS, WORDS_IR

_STEP = ir.Constant(I64_IR, 4)


@intrinsic
def no_pairs(typing, tile):
    """Pairs of nothing, as many as for the i32 lanes of a tile like `tile`."""
    result = tile.of(WORDS)
    return result(tile), lambda context, b, signature, args: ir.Constant(result.ir, None)


# As `dot4`, on pairs: of codes up to 31, four times; up to 63, twice. The other, of signed weights, once.
dot4_pairs = products("dot4_pairs")
dot4_signed_pairs = products("dot4_signed_pairs")


@intrinsic
def weigh(typing, pairs, address):
    """The i32 tile of the sums of two neighbours, each multiplied by one of the two i16 at address + 4n."""
    result = pairs.of(I32)

    def emit(context, b, signature, args):
        def one(n, words):
            factors = b.bitcast(number_for(b, pairs, n, args[1], _STEP, I32_IR), WORDS_IR)
            return ops.target.weigh(b, words, factors)

        return each(b, args[0], one)

    return result(pairs, types.int64), emit


@intrinsic(prefer_literal=True)
def weigh_by(typing, pairs, factor):
    """The same, all multiplied by a literal."""
    if not isinstance(factor, types.IntegerLiteral):
        return None
    result, factors = pairs.of(I32), const(WORDS_IR, factor.literal_value)
    return result(pairs, factor), lambda context, b, signature, args: each(
        b, args[0], lambda n, words: ops.target.weigh(b, words, factors)
    )


@intrinsic
def settled(typing, sums):
    """The i32 tile, before any sums that come later: what waits on the stack is then what was chosen to."""
    return sums(sums), lambda context, b, signature, args: each(
        b, args[0], lambda n, vector: ops.target.settled(b, vector)
    )
