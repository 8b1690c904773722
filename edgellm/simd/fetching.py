"""When memory is read: lines asked for before their use, and loads that wait until registers are free."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.lowering import call
from edgellm.simd.tiles import place_of

_I32 = ir.IntType(32)


def _ask(b, address, locality, write=0):
    """Ask for the line at address: into L2 (locality 2) or L1 (3); to write it, where `write` is 1."""
    place = b.inttoptr(address, ir.IntType(8).as_pointer())
    read, near, data = (ir.Constant(_I32, n) for n in (write, locality, 1))
    call(b, "llvm.prefetch.p0", ir.VoidType(), place, read, near, data)


def _fetch(pinned):
    @intrinsic(prefer_literal=True)
    def op(typing, tile, address, least):
        if not isinstance(least, types.IntegerLiteral):
            return None

        def emit(context, b, signature, args):
            def stay():  # no instruction, but LLVM moves no load and no other request across it
                if pinned:
                    b.fence("seq_cst", "singlethread")

            if tile.count >= least.literal_value:
                stay()
                _ask(b, args[1], 2)
                stay()
            return context.get_dummy_value()

        return types.none(tile, types.int64, least), emit

    return op


# For a tile of `least` tokens or more, ask for the line at address, into L2: where LLVM sees fit, mostly
# beside other requests; or exactly here.
fetch_ahead = _fetch(pinned=False)
fetch_here = _fetch(pinned=True)


@intrinsic
def fetch_rows(typing, like, address, stride):
    """Ask for what `load_rows` would load, into L1."""

    def emit(context, b, signature, args):
        for n in range(like.count):
            _ask(b, place_of(b, like, args[1], args[2], n), 3)
        return context.get_dummy_value()

    return types.none(like, types.int64, types.int64), emit


@intrinsic
def fetch_to_write(typing, address):
    """Ask for the line at address, into L1, for this core alone."""

    def emit(context, b, signature, args):
        _ask(b, args[0], 3, write=1)
        return context.get_dummy_value()

    return types.none(types.int64), emit


@intrinsic
def later(typing, address, tile):
    """The address, which on a target whose registers run out is not known before the tile's sums are; of
    several tiles, the last one's.
    """

    def emit(context, b, signature, args):
        sums, kind = args[1], tile
        if isinstance(tile, types.UniTuple):
            sums, kind = b.extract_value(sums, tile.count - 1), tile.dtype
        return ops.target.later(b, args[0], b.extract_value(sums, kind.count - 1))

    return types.int64(types.int64, tile), emit
