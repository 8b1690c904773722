"""Two tokens whose lanes alternate, as instructions take them that multiply a matrix by a matrix.

Such an instruction takes 8 columns of two rows of weights and of two tokens, and adds four sums of 8 products
in one register (ARM's `smmla`):

    row 0, token 0 | row 0, token 1 | row 1, token 0 | row 1, token 1

So a tile of two tokens is two vectors, of 8 rows each; whatever is one number a row stands there twice, and
numbers of the tokens come in turn. Rope takes pairs of neighbours by the same loads and stores.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.lowering import shuffle
from edgellm.simd.ops import load, store
from edgellm.simd.tiles import each
from edgellm.simd.types import BYTES, F32, F32_IR, I32_IR, LANES, Tile

_FOUR_WORDS = ir.VectorType(ir.IntType(32), 4)


def _reorder(lanes, before, after):
    """An intrinsic that sets the lanes of two rows in another order: lanes(n) are those of vector n."""

    @intrinsic
    def op(typing, tile):
        if tile.count != 2 or tile.interleaved != before:
            return None
        result = Tile(tile.vector, 2, 1, after)

        def emit(context, b, signature, args):
            rows = [b.extract_value(args[0], n) for n in range(2)]
            return each(b, args[0], lambda n, _: shuffle(b, *rows, lanes(n)))

        return result(tile), emit

    return op


def _alternating(n):
    """Half of the lanes of two vectors, n of 2: one of the first, one of the second ..."""
    return [LANES // 2 * n + i // 2 + i % 2 * LANES for i in range(LANES)]


interleave = _reorder(_alternating, 1, 2)
apart = _reorder(lambda n: range(n, 2 * LANES, 2), 2, 1)


@intrinsic(prefer_literal=True)
def load_alternating(typing, address, which):
    """16 of the 32 f32 at address: every other one, from number `which` on."""
    if not isinstance(which, types.IntegerLiteral):
        return None

    def emit(context, b, signature, args):
        first, second = (load(b, args[0], F32_IR, 64 * n) for n in range(2))
        return shuffle(b, first, second, range(which.literal_value, 2 * LANES, 2))

    return F32(types.int64, which), emit


@intrinsic
def store_alternating(typing, address, x, y):
    """Two vectors at address: a lane of x (4 bytes), a lane of y ..."""

    def emit(context, b, signature, args):
        words = [b.bitcast(v, I32_IR) for v in args[1:]]
        for n in range(2):
            store(b, shuffle(b, *words, _alternating(n)), args[0], 64 * n)
        return context.get_dummy_value()

    return types.none(types.int64, x, y), emit


@intrinsic
def dot8(typing, tile, low, high, address):
    """An interleaved tile += the products of 8 columns of 16 rows (`low` has the first 8 rows) and of two
    tokens, 4 bytes of each in turn at address.
    """

    def emit(context, b, signature, args):
        acc, *codes, x = args
        words = load(b, x, _FOUR_WORDS)
        words = shuffle(b, words, ir.Constant(_FOUR_WORDS, ir.Undefined), [0, 2, 1, 3])
        return each(b, acc, lambda n, vector: ops.target.dot8(b, vector, codes[n], words))

    return tile(tile, BYTES, BYTES, types.int64), emit
