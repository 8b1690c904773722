"""What the team is made of: atomic words, spinning, sleeping, and calling a kernel by its address."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from edgellm.simd import ops
from edgellm.simd.lowering import call
from edgellm.simd.ops import pointer
from edgellm.simd.types import I64_IR

_VOID, _I32, _BYTE_POINTER = ir.VoidType(), ir.IntType(32), ir.IntType(8).as_pointer()


@intrinsic
def atomic_load(typing, address):
    """The word at address, before anything that comes after."""

    def emit(context, b, signature, args):
        return b.load_atomic(pointer(b, args[0], I64_IR), "acquire", 8)

    return types.int64(types.int64), emit


@intrinsic
def atomic_store(typing, address, value):
    """Set the word at address, after anything that came before."""

    def emit(context, b, signature, args):
        b.store_atomic(args[1], pointer(b, args[0], I64_IR), "release", 8)
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def compare_and_swap(typing, address, expected, value):
    """Set the word to `value` if it is `expected`; whether it was."""

    def emit(context, b, signature, args):
        result = b.cmpxchg(pointer(b, args[0], I64_IR), args[1], args[2], "seq_cst", "seq_cst")
        return b.extract_value(result, 1)

    return types.boolean(types.int64, types.int64, types.int64), emit


@intrinsic
def fetch_add(typing, address, value):
    """Add to the word at address; what it was before."""

    def emit(context, b, signature, args):
        return b.atomic_rmw("add", pointer(b, args[0], I64_IR), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), emit


@intrinsic
def fence(typing):
    """Nothing moves across, in either direction."""

    def emit(context, b, signature, args):
        b.fence("seq_cst")
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic
def pause(typing):
    """A hint to the CPU that this is a spinning wait."""

    def emit(context, b, signature, args):
        ops.target.pause(b)
        return context.get_dummy_value()

    return types.none(), emit


@intrinsic
def call_kernel(typing, kernel, args_address, header, chunk, worker):
    """Call the kernel at an address."""

    def emit(context, b, signature, args):
        kind = ir.FunctionType(_VOID, [I64_IR] * 4)
        b.call(b.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.none(*[types.int64] * 5), emit


def _pthread(name, count):
    """A pthread function of `count` addresses, its result ignored."""

    def emit(context, b, signature, args):
        call(b, name, _I32, *(b.inttoptr(a, _BYTE_POINTER) for a in args))
        return context.get_dummy_value()

    if count == 1:

        @intrinsic
        def op(typing, first):
            return types.none(types.int64), emit
    else:

        @intrinsic
        def op(typing, first, second):
            return types.none(types.int64, types.int64), emit

    return op


mutex_lock = _pthread("pthread_mutex_lock", 1)
mutex_unlock = _pthread("pthread_mutex_unlock", 1)
condition_wait = _pthread("pthread_cond_wait", 2)
condition_broadcast = _pthread("pthread_cond_broadcast", 1)


@intrinsic
def sleep_ns(typing, nanoseconds, scratch):
    """Let the OS run others for so long, or until a signal; `scratch` is room for the timespec."""

    def emit(context, b, signature, args):
        billion = ir.Constant(I64_IR, 10**9)
        b.store(b.sdiv(args[0], billion), pointer(b, args[1], I64_IR))
        b.store(b.srem(args[0], billion), pointer(b, args[1], I64_IR, 8))
        call(b, "nanosleep", _I32, b.inttoptr(args[1], _BYTE_POINTER), ir.Constant(_BYTE_POINTER, None))
        return context.get_dummy_value()

    return types.none(types.int64, types.int64), emit


@intrinsic
def monotonic_ns(typing, clock, scratch):
    """clock_gettime(clock) in nanoseconds; `scratch` is room for the timespec."""

    def emit(context, b, signature, args):
        call(b, "clock_gettime", _I32, b.trunc(args[0], _I32), b.inttoptr(args[1], _BYTE_POINTER))
        seconds, nanos = (b.load(pointer(b, args[1], I64_IR, offset)) for offset in (0, 8))
        return b.add(b.mul(seconds, ir.Constant(I64_IR, 10**9)), nanos)

    return types.int64(types.int64, types.int64), emit
