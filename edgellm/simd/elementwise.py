"""How an operation on vectors becomes one on tiles: it is done to each vector in turn, so that none waits for
another. A vector among the arguments serves all vectors of the tile.
"""

from __future__ import annotations

from llvmlite import ir
from numba.extending import intrinsic

from edgellm.simd.types import Tile


def lift(given, wanted, result, emit):
    """The signature and the code of an operation on the kinds `given`, from emit(builder, a value of each of
    the kinds `wanted`) -> a `result`; None where those are not what was given, tiles of one shape aside.
    """
    if [kind.vector if isinstance(kind, Tile) else kind for kind in given] != list(wanted):
        return None
    tile = next((kind for kind in given if isinstance(kind, Tile)), None)
    if any(isinstance(kind, Tile) and kind.of(tile.vector) != tile for kind in given):
        return None
    if tile is None:
        return result(*given), lambda context, b, signature, args: emit(b, *args)

    def emit_all(context, b, signature, args):
        out = ir.Constant(tile.of(result).ir, ir.Undefined)
        for n in range(tile.count):
            pairs = zip(given, args, strict=True)
            vectors = [
                b.extract_value(value, n) if isinstance(kind, Tile) else value for kind, value in pairs
            ]
            out = b.insert_value(out, emit(b, *vectors), n)
        return out

    return tile.of(result)(*given), emit_all


def unary(emit, result, argument):
    """An intrinsic of one argument from a function (builder, value) -> value."""

    @intrinsic
    def op(typing, x):
        return lift((x,), (argument,), result, emit)

    return op


def binary(emit, kind):
    """One of two arguments of a kind, which makes one more."""

    @intrinsic
    def op(typing, x, y):
        return lift((x, y), (kind, kind), kind, emit)

    return op
