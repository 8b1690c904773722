#!/usr/bin/env python3
"""What a first start costs: CPU time and memory of compiling kernels, one after the other, in one process.

    python scripts/compile_budget.py --names       what a first start of the default model compiles
    python scripts/compile_budget.py NAME...       compile these

After them, two pieces of work that any CPU does alike: an interpreter's, and LLVM's own over a fixed module.
Run here and under an emulator (`scripts/pi-emul.sh`), the ratio of their times is the emulator's; if that of
the kernels is no larger, then compiling for ARM takes no more work than compiling for this CPU, and a Pi's
time follows from how much slower it runs such programs. An emulator's memory is not a Pi's.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable

_PER_MIB = 1 << 20 if sys.platform == "darwin" else 1 << 10  # of ru_maxrss


def measure(name: str, work: Callable[[], object]) -> float:
    """Print a line with the CPU seconds that `work` took, and the largest this process has been so far."""
    start = time.process_time()
    work()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _PER_MIB
    print(f"| {name} | {seconds:.2f} | {peak:.0f} |", flush=True)
    return seconds


def interpret() -> int:
    """An interpreter's ordinary work, over dicts, strings and lists."""
    table: dict[str, list[int]] = {}
    for i in range(3_000_000):
        table.setdefault(str(i % 5003), []).append(i * i)
    return sum(sum(values) for values in table.values())


def _function(number: int) -> str:
    """A loop nest over memory, as text: LLVM gives it a few milliseconds."""
    adds = "\n".join(
        f"  %v{i} = fmul double %v{i - 1}, %x\n  %w{i} = fadd double %v{i}, %w{i - 1}"
        for i in range(1, 12 + number % 7)
    )
    last = 11 + number % 7
    return f"""
define double @f{number}(ptr %p, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %w0 = phi double [0.0, %entry], [%w{last}, %loop]
  %place = getelementptr double, ptr %p, i64 %i
  %x = load double, ptr %place
  %v0 = fadd double %x, 1.0
{adds}
  store double %w{last}, ptr %place
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  ret double %w{last}
}}
"""


def optimize(triple: str = "aarch64-unknown-linux-gnu") -> bytes:
    """LLVM's pipeline and code generator over a module that is the same everywhere, for the same CPU."""
    import llvmlite.binding as llvm

    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    module = llvm.parse_assembly("".join(_function(i) for i in range(400)))
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu="cortex-a76", opt=3)
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    builder = llvm.create_pass_builder(machine, tuning)
    builder.getModulePassManager().run(module, builder)
    code: bytes = machine.emit_object(module)
    return code


def first_start() -> list[str]:
    """Names of the kernels that the default model needs, as a start without a cache asks for them."""
    from unittest import mock

    import edgellm
    from edgellm.config import DEFAULT_MODEL
    from edgellm.errors import EdgeLLMError
    from edgellm.kernels import cache

    asked: list[str] = []

    def note(names: list[str], *rest: object) -> None:
        asked.extend(names)
        raise EdgeLLMError("these are the names")

    with (
        mock.patch.object(cache, "read_object", return_value=None),
        mock.patch.object(cache, "_compile", note),
    ):
        try:
            edgellm.LLM(DEFAULT_MODEL, context_length=256)
        except EdgeLLMError:
            if not asked:
                raise
    return asked


def main(names: list[str]) -> None:
    """A line each."""
    print("| what | CPU seconds | largest so far, MiB |\n|---|---|---|")

    def imports() -> None:
        import edgellm.kernels.jit  # noqa: F401

    total = measure("import Numba and `kernels.jit`", imports)
    from edgellm.kernels.jit import compile_kernel, kernel_names

    for name in names:
        try:
            total += measure(name, lambda name=name: compile_kernel(name))  # type: ignore[misc]
        except (ModuleNotFoundError, KeyError):
            known = kernel_names()  # not before: what it imports is a part of the kernels' figures
            if name in known:
                raise
            sys.exit(f"no kernel is called {name!r}; there are {', '.join(known)}")
    print(f"| all of these | {total:.2f} | |")
    measure("calibration: Python", interpret)
    measure("calibration: LLVM", optimize)


if __name__ == "__main__":
    if sys.argv[1:] == ["--names"]:
        print(" ".join(first_start()))
    elif sys.argv[1:]:
        main(sys.argv[1:])
    else:
        sys.exit(__doc__)
