"""x86-64: AVX2 (maddubs), AVX-VNNI and AVX-512 with VNNI (dpbusd)."""

from __future__ import annotations

from llvmlite import ir

from edgellm.simd.lowering import HardwareHalf, call, const, shuffle
from edgellm.simd.types import BYTES_IR, I32_IR, WORDS_IR

_I32, _I16, _I8 = ir.IntType(32), ir.IntType(16), ir.IntType(8)
_HALF_BYTES = ir.VectorType(_I8, 32)  # one 256-bit register
_HALF_WORDS = ir.VectorType(_I16, 16)
_HALF_LANES = ir.VectorType(_I32, 8)


def _halves(b, one, *vectors):
    """One vector, whose halves are one(the halves of these)."""
    halves = []
    for half in range(2):
        parts = []
        for v in vectors:
            count = v.type.count // 2
            lanes = range(count * half, count * half + count)
            parts.append(shuffle(b, v, ir.Constant(v.type, ir.Undefined), lanes))
        halves.append(one(*parts))
    return shuffle(b, *halves, range(2 * halves[0].type.count))


class _X86(HardwareHalf):
    def pause(self, b) -> None:
        call(b, "llvm.x86.sse2.pause", ir.VoidType())


class AVX512VNNI(_X86):
    """One `vpdpbusd` takes 16 lanes of four products, of codes up to 255. Signed weights are stored with
    their top bit flipped; the accumulator starts at -128 times the sum of x, which takes the offset back.
    """

    def dot4(self, b, acc, codes, x):
        return call(b, "llvm.x86.avx512.vpdpbusd.512", I32_IR, acc, codes, x)

    dot4_signed = dot4

    def shift_left(self, b, x, bits):
        """Where all lanes shift as far, LLVM would take the instruction for that, which is two operations."""
        return call(b, "llvm.x86.avx512.psllv.d.512", I32_IR, x, bits)

    def low_bytes(self, b, vectors):
        """Halved twice within each quarter of a register; the quarters' words are put in order at last."""
        words = [call(b, "llvm.x86.avx512.packssdw.512", WORDS_IR, *vectors[i : i + 2]) for i in (0, 2)]
        packed = b.bitcast(call(b, "llvm.x86.avx512.packsswb.512", BYTES_IR, *words), I32_IR)
        order = [4 * quarter + vector for vector in range(4) for quarter in range(4)]
        return b.bitcast(shuffle(b, packed, ir.Constant(I32_IR, ir.Undefined), order), BYTES_IR)


class _Halves(_X86):
    """A vector is two registers of half as many lanes."""

    def shift_left(self, b, x, bits):
        """As for AVX512VNNI."""
        return _halves(b, lambda *args: call(b, "llvm.x86.avx2.psllv.d.256", _HALF_LANES, *args), x, bits)


class AVXVNNI(_Halves):
    """`vpdpbusd` on registers of 8 lanes: laptops since 2021 that have no AVX-512."""

    def dot4(self, b, acc, codes, x):
        name = "llvm.x86.avx512.vpdpbusd.256"
        return _halves(b, lambda *args: call(b, name, _HALF_LANES, *args), acc, codes, x)

    dot4_signed = dot4


class AVX2(_Halves):
    """`vpmaddubsw` adds pairs of u8 * s8 in 16 bits, which saturates: codes up to 63 are safe, as are the
    absolute values of signed weights (128 * 127 * 2 = 32512). `vpmaddwd` multiplies pairs of 16 bits and adds
    them again."""

    def dot4(self, b, acc, codes, x):
        return b.add(acc, self.weigh(b, self._pairs(b, codes, x), const(WORDS_IR, 1)))

    def dot4_pairs(self, b, acc, codes, x):
        """Of codes up to 31 four pairs fit into 16 bits (4 * 2 * 31 * 127 = 31496), up to 63 two."""
        return self.settled(b, b.add(acc, self._pairs(b, codes, x)))

    def dot4_signed_pairs(self, b, acc, weights, x):
        """One pair."""
        return self.settled(b, b.add(acc, self._signed_pairs(b, weights, x)))

    def weigh(self, b, words, factors):
        """Two words by two factors, added."""
        name = "llvm.x86.avx2.pmadd.wd"
        return _halves(b, lambda *args: call(b, name, _HALF_LANES, *args), words, factors)

    def settled(self, b, sums):
        """The sums, before any that come later. Left alone, LLVM makes as many products as it can before it
        adds them up, and runs out of registers. No instruction comes of it.
        """

        def one(half):
            kind = ir.FunctionType(half.type, [half.type])
            return b.asm(kind, "", "=x,0", [half], side_effect=True)

        return _halves(b, one, sums)

    def _pairs(self, b, codes, x):
        name = "llvm.x86.avx2.pmadd.ub.sw"
        return _halves(b, lambda *args: call(b, name, _HALF_WORDS, *args), codes, x)

    def _signed_pairs(self, b, weights, x):
        size = call(b, "llvm.abs.v64i8", BYTES_IR, weights, ir.Constant(ir.IntType(1), 0))
        name = "llvm.x86.avx2.psign.b"
        signed = _halves(b, lambda *args: call(b, name, _HALF_BYTES, *args), x, weights)
        return self._pairs(b, size, signed)
