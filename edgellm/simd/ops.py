"""Vectors and numbers from memory and back, and the target that everything is compiled for.

Addresses are plain int64 numbers and count bytes; loads and stores need no alignment.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import lowering
from edgellm.simd.elementwise import unary
from edgellm.simd.lowering import const, shuffle
from edgellm.simd.types import BYTES, BYTES_IR, F32, F32_IR, I32, I32_IR, I64_IR, LANES

_I32, _I16, _I8 = ir.IntType(32), ir.IntType(16), ir.IntType(8)
_F32, _F64 = ir.FloatType(), ir.DoubleType()

target = lowering.Lowering()


def use(name: str) -> None:
    """Compile for this target from here on; one target a process."""
    global target
    target = lowering.find(name)


def pointer(b, address, kind, offset: int = 0):
    """A typed pointer to address + offset."""
    if offset:
        address = b.add(address, ir.Constant(I64_IR, offset))
    return b.inttoptr(address, kind.as_pointer())


def load(b, address, kind, offset: int = 0):
    """An unaligned load."""
    value = b.load(pointer(b, address, kind, offset))
    value.align = 1
    return value


def store(b, value, address, offset: int = 0) -> None:
    """An unaligned store."""
    b.store(value, pointer(b, address, value.type, offset)).align = 1


def broadcast(b, scalar, kind):
    """A vector with `scalar` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return shuffle(b, first, undefined, [0] * kind.count)


def _loader(kind, result):
    return unary(lambda b, address: load(b, address, kind), result, types.int64)


# -- memory ----------------------------------------------------------------------------------------

load_f32 = _loader(F32_IR, F32)
load_i32 = _loader(I32_IR, I32)
load_bytes = _loader(BYTES_IR, BYTES)
get_i64 = _loader(I64_IR, types.int64)
get_i32 = _loader(_I32, types.int32)
get_f32 = _loader(_F32, types.float32)
get_f64 = _loader(_F64, types.float64)
get_i16 = _loader(_I16, types.int16)
get_u8 = _loader(_I8, types.uint8)
get_i8 = _loader(_I8, types.int8)
get_f16 = unary(  # one f16 value as f32
    lambda b, address: b.extract_element(
        target.half_to_float(b, broadcast(b, load(b, address, _I16), ir.VectorType(_I16, LANES))),
        ir.Constant(_I32, 0),
    ),
    types.float32,
    types.int64,
)
load_f16 = unary(  # 16 f16 values as f32
    lambda b, address: target.half_to_float(b, load(b, address, ir.VectorType(_I16, LANES))), F32, types.int64
)
load_bf16 = unary(  # 16 bfloat16 values as f32: their bits are f32's upper half
    lambda b, address: b.bitcast(
        b.shl(b.zext(load(b, address, ir.VectorType(_I16, LANES)), I32_IR), const(I32_IR, 16)), F32_IR
    ),
    F32,
    types.int64,
)
load_u8 = unary(  # 16 bytes as i32
    lambda b, address: b.zext(load(b, address, ir.VectorType(_I8, LANES)), I32_IR), I32, types.int64
)
load_i8 = unary(  # 16 signed bytes as i32
    lambda b, address: b.sext(load(b, address, ir.VectorType(_I8, LANES)), I32_IR), I32, types.int64
)


def _storer(kind, convert=lambda b, value: value):
    @intrinsic
    def op(typing, address, value):
        def emit(context, b, signature, args):
            store(b, convert(b, args[1]), args[0])
            return context.get_dummy_value()

        return types.none(types.int64, kind), emit

    return op


def _finite_half(b, value):
    """f16 bits that are never infinite: in a page, a weight of 0 must still mean nothing."""
    largest, smallest = const(F32_IR, 65504.0), const(F32_IR, -65504.0)
    value = b.select(b.fcmp_ordered(">", value, largest), largest, value)
    value = b.select(b.fcmp_ordered("<", value, smallest), smallest, value)
    return target.float_to_half(b, value)


def _low_bytes(b, value):
    return b.trunc(value, ir.VectorType(_I8, LANES))


store_f32 = _storer(F32)
store_bytes = _storer(BYTES)
store_f16 = _storer(F32, _finite_half)
store_i32 = _storer(I32)
store_i8 = _storer(I32, _low_bytes)
put_f16 = _storer(
    types.float32,
    lambda b, value: b.extract_element(_finite_half(b, broadcast(b, value, F32_IR)), ir.Constant(_I32, 0)),
)
put_i64 = _storer(types.int64)
put_i32 = _storer(types.int32)
put_f32 = _storer(types.float32)
put_f64 = _storer(types.float64)
put_i16 = _storer(types.int16)


@intrinsic
def put_u8(typing, address, value):
    """The low byte of an integer."""

    def emit(context, b, signature, args):
        store(b, b.trunc(args[1], _I8), args[0])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def put_word(typing, address, value):
    """The low 32 bits of an integer."""

    def emit(context, b, signature, args):
        store(b, b.trunc(args[1], _I32), args[0])
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


def _scatterer(kind, convert=lambda b, value: value):
    """Each element of convert(builder, value), at address + its number * stride."""

    @intrinsic
    def op(typing, address, stride, value):
        def emit(context, b, signature, args):
            elements = convert(b, args[2])
            for i in range(elements.type.count):
                element = b.extract_element(elements, ir.Constant(_I32, i))
                store(b, element, b.add(args[0], b.mul(args[1], ir.Constant(I64_IR, i))))
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, kind), emit

    return op


scatter_f32 = _scatterer(F32)
scatter_f16 = _scatterer(F32, _finite_half)
scatter_i8 = _scatterer(I32, _low_bytes)


@intrinsic(prefer_literal=True)
def room(typing, count):
    """The address of so many bytes of the stack, for as long as the kernel runs."""
    if not isinstance(count, types.IntegerLiteral):
        return None

    def emit(context, b, signature, args):
        with b.goto_entry_block():
            place = b.alloca(_I8, count.literal_value)
            place.align = 64
        return b.ptrtoint(place, I64_IR)

    return types.int64(count), emit


def _hide(b, x):
    kind = ir.FunctionType(I64_IR, [I64_IR])
    return b.call(ir.InlineAsm(kind, "", "=r,0", side_effect=True), [x])


opaque = unary(_hide, types.int64, types.int64)  # the same number, of which LLVM knows nothing
