"""How the few operations that differ between CPUs become LLVM IR; this class is the one that works anywhere.

All functions take and give LLVM values; `b` is an IRBuilder.
"""

from __future__ import annotations

import importlib

from llvmlite import ir

from edgellm.simd.types import BYTES_IR, F32_IR, I32_IR, LANES

_I32, _I16, _I8 = ir.IntType(32), ir.IntType(16), ir.IntType(8)
_F16_IR = ir.VectorType(ir.HalfType(), LANES)
_I16_IR = ir.VectorType(_I16, LANES)

_CLASSES = {
    "generic": ("edgellm.simd.lowering", "Lowering"),
    "avx2": ("edgellm.simd.x86", "AVX2"),
    "avx-vnni": ("edgellm.simd.x86", "AVXVNNI"),
    "avx512-vnni": ("edgellm.simd.x86", "AVX512VNNI"),
    "neon": ("edgellm.simd.arm", "Neon"),
    "neon-dotprod": ("edgellm.simd.arm", "NeonDotProd"),
    "neon-i8mm": ("edgellm.simd.arm", "NeonI8MM"),
}


def find(target: str) -> Lowering:
    """The lowering for a target, by its name."""
    module, name = _CLASSES[target]
    return getattr(importlib.import_module(module), name)()


def const(vector_type: ir.VectorType, value) -> ir.Constant:
    """A vector with `value` in every lane."""
    return ir.Constant(vector_type, [value] * vector_type.count)


def call(b, name: str, result, *args):
    """Call an LLVM intrinsic (or a C function) by name."""
    kind = ir.FunctionType(result, [a.type for a in args])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, args)


def shuffle(b, a, other, lanes):
    """Lanes of a and other, picked by number."""
    return b.shuffle_vector(a, other, ir.Constant(ir.VectorType(_I32, len(lanes)), list(lanes)))


class Lowering:
    """Plain LLVM IR: no instruction set in particular, and the same results."""

    by_lane = False  # whether an instruction takes one lane of a vector with all of another

    def low_bytes(self, b, vectors):
        """Of four vectors of i32, each from -128 to 127, the low bytes, one vector after the other."""
        pairs = (shuffle(b, *vectors[i : i + 2], range(2 * LANES)) for i in (0, 2))
        return b.trunc(shuffle(b, *pairs, range(4 * LANES)), BYTES_IR)

    def dot4(self, b, acc, codes, x):
        """acc[i] + sum over t of codes[4i + t] * x[t]; codes u8 of at most 63, x s8: four, in every lane."""
        return self._dot4(b, acc, codes, x, b.zext)

    def dot4_lanes(self, b, acc, codes, x):
        """The same with other x in each lane: + codes[4i + t] * x[4i + t]."""
        return self.dot4(b, acc, codes, x)

    def dot4_signed(self, b, acc, weights, x):
        """The same for weights of the full signed range, as `pack` stored them."""
        return self._dot4(b, acc, weights, x, b.sext)

    def _dot4(self, b, acc, weights, x, extend):
        wide = ir.VectorType(_I16, LANES)
        undefined = ir.Constant(BYTES_IR, ir.Undefined)
        for t in range(4):
            lanes = range(t, 4 * LANES, 4)
            w = extend(shuffle(b, weights, undefined, lanes), wide)
            product = b.mul(w, b.sext(shuffle(b, x, undefined, lanes), wide))  # fits: 128 * 127 < 2^15
            acc = b.add(acc, b.sext(product, I32_IR))
        return acc

    def later(self, b, address, sums):
        """The address, once these sums are done, where it helps to wait."""
        return address

    def shift_left(self, b, x, bits):
        """x << bits, i32 lanes both."""
        return b.shl(x, bits)

    def append_bits(self, b, upper, lower, count):
        """upper << count, and below it the lowest bits of lower."""
        below = b.and_(lower, const(BYTES_IR, (1 << count) - 1))
        return b.or_(b.shl(upper, const(BYTES_IR, count)), below)

    def fma(self, b, x, y, z):
        """x * y + z. Without the instruction, two roundings."""
        return b.fadd(b.fmul(x, y), z)

    def half_to_float(self, b, bits):
        """f32 lanes from the bits of f16 ones, [LANES] i16."""
        wide = b.zext(bits, I32_IR)
        magnitude = b.shl(b.and_(wide, const(I32_IR, 0x7FFF)), const(I32_IR, 13))
        value = b.fmul(b.bitcast(magnitude, F32_IR), const(F32_IR, 2.0**112))
        special = b.icmp_unsigned(">=", magnitude, const(I32_IR, 0x7C00 << 13))
        infinite = b.or_(magnitude, const(I32_IR, 0xFF << 23))
        finite = b.bitcast(value, I32_IR)
        sign = b.shl(b.and_(wide, const(I32_IR, 0x8000)), const(I32_IR, 16))
        return b.bitcast(b.or_(b.select(special, infinite, finite), sign), F32_IR)

    def float_to_half(self, b, value):
        """The bits of f16 lanes, [LANES] i16, from f32 ones; to nearest even, too large becomes infinite."""
        bits = b.bitcast(value, I32_IR)
        sign = b.and_(bits, const(I32_IR, -(1 << 31)))
        magnitude = b.xor(bits, sign)
        tie = b.and_(b.lshr(magnitude, const(I32_IR, 13)), const(I32_IR, 1))
        rebiased = b.add(b.add(magnitude, const(I32_IR, ((15 - 127) << 23) + 0xFFF)), tie)
        normal = b.lshr(rebiased, const(I32_IR, 13))
        # The last bit of 0.5 is worth 2^-24, as a denormal f16's is: adding 0.5 rounds to those.
        magic = ((127 - 15) + (23 - 10) + 1) << 23
        shifted = b.fadd(b.bitcast(magnitude, F32_IR), b.bitcast(const(I32_IR, magic), F32_IR))
        denormal = b.sub(b.bitcast(shifted, I32_IR), const(I32_IR, magic))
        small = b.icmp_unsigned("<", magnitude, const(I32_IR, (127 - 14) << 23))
        large = b.icmp_unsigned(">=", magnitude, const(I32_IR, (127 + 16) << 23))
        nan = b.icmp_unsigned(">", magnitude, const(I32_IR, 0xFF << 23))
        half = b.select(small, denormal, normal)
        half = b.select(large, b.select(nan, const(I32_IR, 0x7E00), const(I32_IR, 0x7C00)), half)
        return b.trunc(b.or_(half, b.lshr(sign, const(I32_IR, 16))), _I16_IR)

    def pause(self, b) -> None:
        """A hint that this is a spinning wait."""


class HardwareHalf(Lowering):
    """CPUs that convert f16 and multiply-add in one instruction each: LLVM's own operations."""

    def fma(self, b, x, y, z):
        return call(b, f"llvm.fma.v{LANES}f32", x.type, x, y, z)

    def half_to_float(self, b, bits):
        return b.fpext(b.bitcast(bits, _F16_IR), F32_IR)

    def float_to_half(self, b, value):
        return b.bitcast(b.fptrunc(value, _F16_IR), _I16_IR)
