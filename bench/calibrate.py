"""Two loops that say what the machine gives at this moment: multiply-adds, and bytes read in order.

They are written in LLVM's own language and share no code with what is measured, so that a change of the
kernels, or of the vector types below them, cannot move the measure. LLVM splits vectors as this CPU needs.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

ROUNDS = 20_000  # of the first loop: some tens of microseconds, short beside an OS's slice of time
_CHAINS = 6  # additions under way at once: two registers each with AVX2, four with NEON
_ROW = "<16 x float>"
_LINE = "<16 x i32>"


def _multiply_adds() -> str:
    """sums[i] = sums[i] * factor + term, `rounds` times; in and out at `room`."""
    chains = range(_CHAINS)
    phis = [f"%s{i} = phi {_ROW} [ %factor, %entry ], [ %n{i}, %loop ]" for i in chains]
    steps = [
        f"%n{i} = call {_ROW} @llvm.fmuladd.v16f32({_ROW} %s{i}, {_ROW} %factor, {_ROW} %term)"
        for i in chains
    ]
    stores = [
        f"%p{i} = getelementptr i8, ptr %room, i64 {64 * (2 + i)}\nstore {_ROW} %n{i}, ptr %p{i}, align 4"
        for i in chains
    ]
    return f"""
declare {_ROW} @llvm.fmuladd.v16f32({_ROW}, {_ROW}, {_ROW})
define void @multiply_adds(ptr %room, i64 %rounds) {{
entry:
  %factor = load {_ROW}, ptr %room, align 4
  %second = getelementptr i8, ptr %room, i64 64
  %term = load {_ROW}, ptr %second, align 4
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {chr(10).join(phis)}
  {chr(10).join(steps)}
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %rounds
  br i1 %more, label %loop, label %exit
exit:
  {chr(10).join(stores)}
  ret void
}}"""


def _read() -> str:
    """The exclusive or of all words, four lines of 64 bytes at a time."""
    phis = [f"%s{i} = phi {_LINE} [ zeroinitializer, %entry ], [ %n{i}, %loop ]" for i in range(4)]
    steps = [
        f"%p{i} = getelementptr i8, ptr %at, i64 {64 * i}\n%v{i} = load {_LINE}, ptr %p{i}, align 1\n"
        f"%n{i} = xor {_LINE} %s{i}, %v{i}"
        for i in range(4)
    ]
    return f"""
declare i32 @llvm.vector.reduce.xor.v16i32({_LINE})
define i32 @read(ptr %memory, i64 %count) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {chr(10).join(phis)}
  %at = getelementptr i8, ptr %memory, i64 %i
  {chr(10).join(steps)}
  %next = add i64 %i, 256
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %exit
exit:
  %a = xor {_LINE} %n0, %n1
  %b = xor {_LINE} %n2, %n3
  %c = xor {_LINE} %a, %b
  %sum = call i32 @llvm.vector.reduce.xor.v16i32({_LINE} %c)
  ret i32 %sum
}}"""


@functools.cache
def _engine() -> llvm.ExecutionEngine:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_multiply_adds() + _read()), machine)
    engine.finalize_object()
    return engine


def _function(name: str, *signature: Any) -> Any:
    return ctypes.CFUNCTYPE(*signature)(_engine().get_function_address(name))


def multiply_adds() -> Callable[[], None]:
    """What kernels that compute are timed beside: ROUNDS times six products and sums of 16 lanes."""
    function = _function("multiply_adds", None, ctypes.c_int64, ctypes.c_int64)
    room = np.zeros((2 + _CHAINS, 16), np.float32)
    room[0], room[1] = 0.5, 1.0  # sums go to 2: neither large nor denormal

    def run() -> None:
        function(room.ctypes.data, ROUNDS)

    return run


def read(memory: NDArray[np.uint8]) -> Callable[[], int]:
    """What kernels that wait for memory are timed beside: all of `memory`, in order, to a multiple of 256."""
    function = _function("read", ctypes.c_int32, ctypes.c_int64, ctypes.c_int64)

    def run() -> int:
        return int(function(memory.ctypes.data, memory.nbytes // 256 * 256))

    return run
