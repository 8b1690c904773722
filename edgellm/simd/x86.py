"""x86-64: AVX2 (maddubs), AVX-VNNI and AVX-512 with VNNI (dpbusd)."""

from __future__ import annotations

from llvmlite import ir

from edgellm.simd.lowering import HardwareHalf, call, const, shuffle
from edgellm.simd.types import BYTES_IR, I32_IR, WORDS

_I32, _I16, _I8 = ir.IntType(32), ir.IntType(16), ir.IntType(8)
_HALF_BYTES = ir.VectorType(_I8, 32)  # one 256-bit register
_HALF_WORDS = ir.VectorType(_I16, 16)
_HALF_LANES = ir.VectorType(_I32, 8)


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
        words = [call(b, "llvm.x86.avx512.packssdw.512", WORDS.ir, *vectors[i : i + 2]) for i in (0, 2)]
        packed = b.bitcast(call(b, "llvm.x86.avx512.packsswb.512", BYTES_IR, *words), I32_IR)
        order = [4 * quarter + vector for vector in range(4) for quarter in range(4)]
        return b.bitcast(shuffle(b, packed, ir.Constant(I32_IR, ir.Undefined), order), BYTES_IR)


class AVXVNNI(_X86):
    """The same instruction on registers of 8 lanes: laptops since 2021 that have no AVX-512."""

    def dot4(self, b, acc, codes, x):
        halves = []
        for half in range(2):
            take, lanes = range(32 * half, 32 * half + 32), range(8 * half, 8 * half + 8)
            w, v = (shuffle(b, a, ir.Constant(BYTES_IR, ir.Undefined), take) for a in (codes, x))
            sums = shuffle(b, acc, ir.Constant(I32_IR, ir.Undefined), lanes)
            halves.append(call(b, "llvm.x86.avx512.vpdpbusd.256", _HALF_LANES, sums, w, v))
        return shuffle(b, *halves, range(16))

    dot4_signed = dot4


class AVX2(_X86):
    """`vpmaddubsw` adds pairs of u8 * s8 in 16 bits, which saturates: codes up to 63 are safe, as are the
    absolute values of signed weights (128 * 127 * 2 = 32512). `vpmaddwd` by ones adds pairs again.

    Of codes up to 31, four sums fit into 16 bits together (4 * 2 * 31 * 127 = 31496): they are added there,
    and widened once."""

    partial = WORDS

    def begin_partial(self, b, start):
        return ir.Constant(WORDS.ir, None)

    def dot4_small(self, b, acc, codes, x):
        halves = []
        for half in range(2):
            take = range(32 * half, 32 * half + 32)
            w, v = (shuffle(b, a, ir.Constant(BYTES_IR, ir.Undefined), take) for a in (codes, x))
            words = shuffle(b, acc, ir.Constant(acc.type, ir.Undefined), range(16 * half, 16 * half + 16))
            halves.append(b.add(words, call(b, "llvm.x86.avx2.pmadd.ub.sw", _HALF_WORDS, w, v)))
        return shuffle(b, *halves, range(32))

    def end_partial(self, b, acc, start):
        halves = []
        for half in range(2):
            words = shuffle(b, acc, ir.Constant(acc.type, ir.Undefined), range(16 * half, 16 * half + 16))
            halves.append(call(b, "llvm.x86.avx2.pmadd.wd", _HALF_LANES, words, const(_HALF_WORDS, 1)))
        return b.add(shuffle(b, *halves, range(16)), start())

    def dot4(self, b, acc, codes, x):
        return self._by_halves(b, acc, codes, x, lambda w, v: (w, v))

    def dot4_signed(self, b, acc, weights, x):
        def magnitude_and_sign(w, v):
            absolute = call(b, "llvm.abs.v32i8", _HALF_BYTES, w, ir.Constant(ir.IntType(1), 0))
            return absolute, call(b, "llvm.x86.avx2.psign.b", _HALF_BYTES, v, w)

        return self._by_halves(b, acc, weights, x, magnitude_and_sign)

    def _by_halves(self, b, acc, weights, x, operands):
        halves = []
        for half in range(2):
            take = range(32 * half, 32 * half + 32)
            w, v = (shuffle(b, a, ir.Constant(BYTES_IR, ir.Undefined), take) for a in (weights, x))
            pairs = call(b, "llvm.x86.avx2.pmadd.ub.sw", _HALF_WORDS, *operands(w, v))
            quads = call(b, "llvm.x86.avx2.pmadd.wd", _HALF_LANES, pairs, const(_HALF_WORDS, 1))
            lanes = range(8 * half, 8 * half + 8)
            halves.append(b.add(shuffle(b, acc, ir.Constant(I32_IR, ir.Undefined), lanes), quads))
        return shuffle(b, *halves, range(16))
