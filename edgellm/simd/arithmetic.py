"""Arithmetic on vectors, and lane by lane comparisons. Most of it takes tiles, too (`elementwise.py`)."""

from __future__ import annotations

import itertools
import operator

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, lower_builtin, type_callable

from edgellm.simd import ops
from edgellm.simd.elementwise import binary, lift, unary
from edgellm.simd.lowering import call, const, shuffle
from edgellm.simd.ops import broadcast
from edgellm.simd.types import BYTES, BYTES_IR, F32, F32_IR, I32, I32_IR, LANES, Tile, Vector

_I32, _I8 = ir.IntType(32), ir.IntType(8)
_F32 = ir.FloatType()


@intrinsic
def low_bytes(typing, x, y, z, w):
    """The low bytes of four vectors of i32, each from -128 to 127."""
    return BYTES(I32, I32, I32, I32), lambda context, b, signature, args: ops.target.low_bytes(b, args)


def magnitude(b, x):
    """|x| of f32 lanes."""
    return call(b, "llvm.fabs.v16f32", F32_IR, x)


def larger(b, x, y):
    """x where it is the larger, else y."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def smaller(b, x, y):
    """x where it is the smaller, else y."""
    return b.select(b.fcmp_ordered("<", x, y), x, y)


splat = unary(lambda b, x: broadcast(b, x, F32_IR), F32, types.float32)
splat_i32 = unary(lambda b, x: broadcast(b, x, I32_IR), I32, types.int32)
to_f32 = unary(lambda b, x: b.sitofp(x, F32_IR), F32, I32)
float_bits = unary(lambda b, x: b.bitcast(x, I32_IR), I32, F32)
bits_float = unary(lambda b, x: b.bitcast(x, F32_IR), F32, I32)
absolute = unary(magnitude, F32, F32)
sqrt = unary(lambda b, x: call(b, "llvm.sqrt.f32", _F32, x), types.float32, types.float32)
maximum = binary(larger, F32)
minimum = binary(smaller, F32)
minimum_i32 = binary(lambda b, x, y: b.select(b.icmp_signed("<", x, y), x, y), I32)


def _operator(function, by_kind):
    """Have an operator of Python's stand for emit(builder, x, y), by the kind of both."""

    def lifted(x, y):
        kind = x.vector if isinstance(x, Tile) else x
        return lift((x, y), (kind, kind), kind, by_kind[kind]) if kind in by_kind else None

    @type_callable(function)
    def typed(context):
        def result(x, y):
            found = lifted(x, y)
            return found and found[0].return_type

        return result

    for kinds in itertools.product((Vector, Tile), repeat=2):

        @lower_builtin(function, *kinds)
        def emit(context, b, signature, args):
            return lifted(*signature.args)[1](context, b, signature, args)


_operator(operator.add, {F32: lambda b, x, y: b.fadd(x, y), I32: lambda b, x, y: b.add(x, y)})
_operator(operator.sub, {F32: lambda b, x, y: b.fsub(x, y), I32: lambda b, x, y: b.sub(x, y)})
_operator(operator.mul, {F32: lambda b, x, y: b.fmul(x, y), I32: lambda b, x, y: b.mul(x, y)})
_operator(operator.truediv, {F32: lambda b, x, y: b.fdiv(x, y)})
_operator(operator.and_, {BYTES: lambda b, x, y: b.and_(x, y)})
_operator(operator.or_, {kind: lambda b, x, y: b.or_(x, y) for kind in (BYTES, I32)})


@intrinsic
def fma(typing, x, y, z):
    """x * y + z with one rounding (two where the CPU has no such instruction)."""
    return lift((x, y, z), (F32,) * 3, F32, lambda b, *args: ops.target.fma(b, *args))


first_lane = unary(lambda b, x: b.extract_element(x, ir.Constant(_I32, 0)), types.float32, F32)


def _by_literal(emit, kind):
    """An intrinsic (value, literal) whose second argument is known when compiling."""

    @intrinsic(prefer_literal=True)
    def op(typing, x, literal):
        if not isinstance(literal, types.IntegerLiteral):
            return None
        value = literal.literal_value
        _, each = lift((x,), (kind,), kind, lambda b, vector: emit(b, vector, value))
        return x(x, literal), lambda context, b, signature, args: each(context, b, signature, args[:1])

    return op


mask_bytes = _by_literal(lambda b, x, mask: b.and_(x, const(BYTES_IR, mask)), BYTES)
shift_left_bytes = _by_literal(lambda b, x, bits: b.shl(x, const(BYTES_IR, bits)), BYTES)
shift_right_bytes = _by_literal(lambda b, x, bits: b.lshr(x, const(BYTES_IR, bits)), BYTES)
shift_left_i32 = _by_literal(lambda b, x, bits: b.shl(x, const(I32_IR, bits)), I32)
shift_right_i32 = _by_literal(lambda b, x, bits: b.ashr(x, const(I32_IR, bits)), I32)


@intrinsic(prefer_literal=True)
def append_bits(typing, upper, lower, count):
    """Bytes of `upper`, moved up by `count` bits, with as many of the lowest bits of `lower` below."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def emit(context, b, signature, args):
        return ops.target.append_bits(b, args[0], args[1], count.literal_value)

    return BYTES(BYTES, BYTES, count), emit


@intrinsic
def lane_numbers(typing):
    """0, 1, ... 15."""
    return I32(), lambda context, b, signature, args: ir.Constant(I32_IR, list(range(LANES)))


@intrinsic(prefer_literal=True)
def alternating(typing, even, odd):
    """`even` in lanes 0, 2, ..., `odd` in the others."""
    if not all(isinstance(kind, types.IntegerLiteral) for kind in (even, odd)):
        return None
    lanes = [even.literal_value, odd.literal_value] * (LANES // 2)
    return I32(even, odd), lambda context, b, signature, args: ir.Constant(I32_IR, lanes)


def _swap(b, x):
    return shuffle(b, x, ir.Constant(x.type, ir.Undefined), [lane ^ 1 for lane in range(LANES)])


# Lanes 0 and 1, 2 and 3, ... change places.
swap_neighbours, swap_neighbours_i32 = unary(_swap, F32, F32), unary(_swap, I32, I32)


@intrinsic
def where_at_most(typing, x, limit, yes, no):
    """`yes` in the lanes where x <= limit, `no` elsewhere."""

    def emit(context, b, signature, args):
        return b.select(b.icmp_signed("<=", args[0], args[1]), args[2], args[3])

    return F32(I32, I32, F32, F32), emit


@intrinsic
def any_less(typing, x, limit):
    """Whether x < limit in any lane."""

    def emit(context, b, signature, args):
        less = b.zext(b.fcmp_ordered("<", *args), ir.VectorType(_I8, LANES))
        return b.icmp_signed("!=", call(b, "llvm.vector.reduce.or.v16i8", _I8, less), ir.Constant(_I8, 0))

    return types.boolean(F32, F32), emit


@intrinsic
def where_less(typing, x, limit, yes, no):
    """`yes` in the lanes where x < limit, `no` elsewhere."""

    def emit(b, x, limit, yes, no):
        return b.select(b.fcmp_ordered("<", x, limit), yes, no)

    return lift((x, limit, yes, no), (F32,) * 4, F32, emit)
