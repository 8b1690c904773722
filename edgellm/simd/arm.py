"""AArch64: NEON, alone (smull), with the dot product of bytes (sdot), and with products of matrices (smmla).

A vector of 16 lanes is four registers, so the dot product goes by quarters. Codes of at most 63 are the same
number signed or not, so one signed product serves both kinds of weights, and signed bytes are packed as they
are. f16 conversions and fma are in every AArch64.
"""

from __future__ import annotations

from llvmlite import ir

from edgellm.simd.lowering import HardwareHalf, call, shuffle

_I32, _I16 = ir.IntType(32), ir.IntType(16)
_QUARTER_LANES = ir.VectorType(_I32, 4)  # one 128-bit register
_EIGHT_WORDS = ir.VectorType(_I16, 8)
_YIELD = 1


def _part(b, vector, first: int, count: int):
    """`count` neighbouring lanes."""
    return shuffle(b, vector, ir.Constant(vector.type, ir.Undefined), range(first, first + count))


def _join(b, parts):
    """Four registers side by side."""
    lanes = parts[0].type.count
    low, high = (shuffle(b, *parts[i : i + 2], range(2 * lanes)) for i in (0, 2))
    return shuffle(b, low, high, range(4 * lanes))


class Neon(HardwareHalf):
    """`smull` makes products of 16 bits. Two neighbours fit into 16 bits too (128 * 127 * 2 = 32512), so
    `addp` adds them there, and `sadalp` adds pairs of those into the accumulator.
    """

    by_lane = True

    def dot4(self, b, acc, codes, x):
        quarters, v = [], _part(b, x, 0, 16)
        for i in range(4):
            if quarters:
                v = self._after(b, v, quarters[-1])
            quarters.append(self._quarter(b, _part(b, acc, 4 * i, 4), _part(b, codes, 16 * i, 16), v))
        return _join(b, quarters)

    def dot4_lanes(self, b, acc, codes, x):
        parts = [[_part(b, v, n * i, n) for v, n in ((acc, 4), (codes, 16), (x, 16))] for i in range(4)]
        return _join(b, [self._quarter(b, *part) for part in parts])

    def _after(self, b, v, sums):
        """v, but not before the sums: else LLVM makes the products of all quarters first, and registers run
        out. No instruction comes of it.
        """
        return b.asm(ir.FunctionType(v.type, [v.type, sums.type]), "", "=w,0,w", [v, sums], side_effect=False)

    def later(self, b, address, sums):
        """LLVM would load and put together all codes before the first product."""
        last = _part(b, sums, 12, 4)
        kind = ir.FunctionType(address.type, [address.type, last.type])
        return b.asm(kind, "", "=r,0,w", [address, last], side_effect=False)

    def dot4_signed(self, b, acc, weights, x):
        return self.dot4(b, acc, weights, x)

    def _quarter(self, b, acc, w, v):
        products = [
            call(b, "llvm.aarch64.neon.smull.v8i16", _EIGHT_WORDS, _part(b, w, i, 8), _part(b, v, i, 8))
            for i in (0, 8)
        ]
        pairs = call(b, "llvm.aarch64.neon.addp.v8i16", _EIGHT_WORDS, *products)
        return b.add(acc, call(b, "llvm.aarch64.neon.saddlp.v4i32.v8i16", _QUARTER_LANES, pairs))

    def append_bits(self, b, upper, lower, count):
        quarters = []
        for i in range(4):
            high, low = _part(b, upper, 16 * i, 16), _part(b, lower, 16 * i, 16)
            shift = ir.Constant(_I32, count)
            quarters.append(call(b, "llvm.aarch64.neon.vsli.v16i8", high.type, low, high, shift))
        return _join(b, quarters)

    def pause(self, b) -> None:
        call(b, "llvm.aarch64.hint", ir.VoidType(), ir.Constant(_I32, _YIELD))


class NeonDotProd(Neon):
    """One `sdot` takes 4 lanes of four products."""

    def _after(self, b, v, sums):
        return v  # nothing is between the product and its sum

    def _quarter(self, b, acc, w, v):
        return call(b, "llvm.aarch64.neon.sdot.v4i32.v16i8", _QUARTER_LANES, acc, w, v)


class NeonI8MM(NeonDotProd):
    """One `smmla` takes two rows and two tokens, with eight products each."""

    def dot8(self, b, acc, codes, x):
        """acc, interleaved, + the products of 8 rows of codes, 8 bytes each, with those of two tokens."""
        tokens = b.bitcast(x, ir.VectorType(ir.IntType(8), 16))
        name, rows = "llvm.aarch64.neon.smmla.v4i32.v16i8", []
        for i in range(4):
            sums, w = _part(b, acc, 4 * i, 4), _part(b, codes, 16 * i, 16)
            rows.append(call(b, name, _QUARTER_LANES, sums, w, tokens))
        return _join(b, rows)
