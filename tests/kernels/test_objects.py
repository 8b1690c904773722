"""What kernels compile to, for every target of this machine and for CPUs that are not here.

Each in a process of its own: an instruction that a CPU lacks makes LLVM abort.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from edgellm.kernels import cache
from edgellm.kernels.compilers import compiler_environment
from edgellm.simd import targets

# Everything outside libc would tie an object to the process that compiled it.
LIBC = {
    "clock_gettime", "memcpy", "memset", "nanosleep", "pthread_cond_broadcast", "pthread_cond_wait",
    "pthread_mutex_lock", "pthread_mutex_unlock",
}  # fmt: skip
_ARM = {"attention.attend_f16_f16": ["fmla", "fcvtl"]}
INSTRUCTIONS = {
    "avx512-vnni": {"matmul.q4_0": ["vpdpbusd", "zmm"], "attention.attend_f16_f16": ["vfmadd", "vcvtph2ps"]},
    "avx-vnni": {"matmul.q4_0": ["vpdpbusd", "ymm"], "matmul.q8_0": ["vpdpbusd"]},
    "avx2": {
        "matmul.q4_0": ["vpmaddubsw", "vpmaddwd", "ymm"],
        "attention.attend_f16_f16": ["vfmadd", "vcvtph2ps"],
    },
    "neon-i8mm": _ARM | {"matmul.q4_0": ["sdot", "smmla", "fmla", "fcvtl"], "matmul.q8_0": ["sdot", "smmla"]},
    "neon-dotprod": _ARM | {"matmul.q4_0": ["sdot", "fmla", "fcvtl"], "matmul.q8_0": ["sdot"]},
    "neon": _ARM
    | {"matmul.q4_0": ["smull", "addp", "sadalp", "fmla", "fcvtl"], "matmul.q8_0": ["smull", "sadalp"]},
    "generic": {},
}
FORBIDDEN = {
    "avx2": ["zmm", "vpdpbusd"],
    "avx-vnni": ["zmm", "vpmaddubsw"],
    "generic": ["zmm", "ymm", "vfmadd", "sdot"],
    "neon": ["sdot", "smmla"],
    "neon-dotprod": ["smmla", "usdot"],
}

# Targets on CPUs that people have: LLVM's triple, CPU, features beyond those of the CPU.
_LINUX = "aarch64-unknown-linux-gnu"
_PC = "x86_64-unknown-linux-gnu"
CROSS = {
    "Pi 4": f"neon,{_LINUX},cortex-a72",
    "Pi 5": f"neon-dotprod,{_LINUX},cortex-a76",
    "server of 2022": f"neon-i8mm,{_LINUX},neoverse-n2",
    "an ARM that LLVM does not know": f"neon-dotprod,{_LINUX},generic,+dotprod",
    "M1": "neon-dotprod,arm64-apple-macosx,apple-m1",
    "M2": "neon-i8mm,arm64-apple-macosx,apple-m2",
    "PC of 2009": f"generic,{_PC},x86-64-v2",
    "PC of 2013": f"avx2,{_PC},x86-64-v3",
    "laptop of 2021": f"avx-vnni,{_PC},alderlake",
    "PC of 2021": f"avx512-vnni,{_PC},x86-64-v4,+avx512vnni",
    "PC of 2024": f"avx512-vnni,{_PC},znver5",
}
NAMES = [
    "matmul.q4_0",
    "attention.attend_f16_f16",
    "pointwise.glu_silu",
    "team.run",
    "team.work",
    "pack.q6_k",
    "sample.draw",
]
# Compiled each time: one of each target that no x86 machine has. `scripts/test-long` compiles all for all.
QUICK = ["matmul.q4_0", "matmul.q8_0", "team.work"]
QUICK_CPUS = ["Pi 4", "an ARM that LLVM does not know", "M2"]
PROGRAM = """
import json, sys
from edgellm.kernels import jit
result = {}
for name in sys.argv[1:] or jit.kernel_names():
    module = jit.compile_module(name)
    outside = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    result[name] = {"outside": outside, "assembly": jit.assembly(module)}
print(json.dumps(result))
"""


@dataclass(frozen=True)
class Compiling:
    """A process that compiles kernels for a target, of this machine or of another."""

    target: str
    names: tuple[str, ...]  # none: every kernel there is
    cross: str = ""

    def __call__(self) -> dict[str, dict]:
        """By kernel: the functions it calls, and its assembly."""
        to = {"EDGELLM_CROSS": self.cross} if self.cross else compiler_environment(targets.named(self.target))
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, *self.names],
            env=os.environ | to,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        return json.loads(run.stdout)


def here(*names: str) -> list:
    """A job for each target of this machine, as parameters."""
    return [pytest.param(Compiling(t.name, names), id=t.name) for t in targets.available()]


def elsewhere(cpus: Iterable[str], *names: str) -> list:
    """The same for CPUs that are not here."""
    return [pytest.param(_on(cpu, *names), id=cpu) for cpu in cpus]


def _on(cpu: str, *names: str) -> Compiling:
    return Compiling(CROSS[cpu].partition(",")[0], names, CROSS[cpu])


def check(compiled: dict[str, dict], target: str) -> None:
    """Nothing but libc is called, the wanted instructions are there, and the others are not; what x86 spills
    of its vectors does not cross cache lines.
    """
    for name, facts in compiled.items():
        assert not re.search(r"vmov(ups|dqu\d*)\s+%[yz]mm\d+, \d*\(%rsp\)", facts["assembly"]), name
        assert set(facts["outside"]) <= LIBC, name
        assert "__aarch64_" not in facts["assembly"], name  # atomics that libgcc would have to bring
        for instruction in FORBIDDEN.get(target, []):
            assert not re.search(rf"\b{instruction}", facts["assembly"]), (name, instruction)
    for name, wanted in INSTRUCTIONS[target].items():
        for instruction in wanted if name in compiled else []:
            assert re.search(rf"\b{instruction}", compiled[name]["assembly"]), (name, instruction)


@pytest.mark.parametrize("job", here(*NAMES))
def test_objects_call_only_libc_and_use_the_targets_instructions(job, ahead):
    check(ahead(job), job.target)


@pytest.mark.parametrize("job", elsewhere(QUICK_CPUS, *QUICK))
def test_products_on_cpus_that_are_not_here(job, ahead):
    check(ahead(job), job.target)


PRODUCTS = _on("PC of 2021", "matmul.q4_0", "matmul.q4_k", "matmul.q8_0")


@pytest.mark.parametrize("job", [PRODUCTS], ids=["PC of 2021"])
def test_each_tile_has_one_loop(job, ahead):
    """LLVM would write down two, for sums that wait and for others (`kernels/matmul.py`)."""
    for name, facts in ahead(job).items():
        loops = [
            loop for loop in innermost_loops(facts["assembly"]) if any("vpdpbusd" in line for line in loop)
        ]
        assert len(loops) == 4, name  # tiles of 1, 2, 4 and 8


@pytest.mark.parametrize("job", [PRODUCTS], ids=["PC of 2021"])
def test_requests_for_lines_stand_apart(job, ahead):
    """Side by side, they cost eight tokens from memory up to a tenth of their speed (`kernels/packed.py`)."""
    for name, facts in ahead(job).items():
        lines = [line for line in facts["assembly"].splitlines() if not line.strip().startswith("#")]
        requests = [i for i, line in enumerate(lines) if "prefetcht1" in line]  # weights, into L2
        assert len(requests) >= 4 * 5, name  # tiles of 1, 2, 4 and 8, at least five lines a block
        assert all(b > a + 1 for a, b in itertools.pairwise(requests)), name


def innermost_loops(assembly: str) -> list[list[str]]:
    """The instructions of each x86 loop that has no other inside."""
    lines = [line.strip() for line in assembly.splitlines() if not line.strip().startswith("#")]
    labels = {line[:-1]: i for i, line in enumerate(lines) if re.fullmatch(r"\.L\w+:", line)}
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"j\w+\s+(\.L\w+)", line)
        if jump and labels.get(jump[1], end) < end:
            body = lines[labels[jump[1]] + 1 : end]
            if not any(each in labels for each in (line[:-1] for line in body)):
                loops.append(body)
    return loops


OLDER = _on("PC of 2013", "matmul.q4_0", "matmul.q4_k")


@pytest.mark.parametrize("job", [OLDER], ids=["PC of 2013"])
def test_sixteen_registers_hold_a_tiles_products(job, ahead):
    """What waits on the stack is eight results and eight totals, once each way (`kernels/weighed.py`)."""
    for name, facts in ahead(job).items():
        loops = innermost_loops(facts["assembly"])
        loops = [loop for loop in loops if sum("vpmaddubsw" in line for line in loop) == 64]
        assert len(loops) == 2, name  # four tokens, from a panel as it is and from an unpacked one
        for loop in loops:
            assert sum("(%rsp)" in line for line in loop) <= 32, name
            assert sum("vpmaddwd" in line for line in loop) == 16, name


TWO_PANELS = ["q4_0", "q8_0", "q5_0", "q5_1", "q5_k", "q6_k"]


@pytest.mark.parametrize("job", [_on("PC of 2024", f"matmul.{form}") for form in TWO_PANELS], ids=TWO_PANELS)
def test_two_panels_take_few_loads_and_no_stack(job, ahead):
    """One panel against eight tokens takes 101 and more (`kernels/two_panels.py`)."""
    assembly = ahead(job)[job.names[0]]["assembly"]
    dots = [[line for line in loop if "vpdpbusd" in line] for loop in innermost_loops(assembly)]
    loops = [
        [line for line in loop if not line.startswith("prefetch")]
        for loop, products in zip(innermost_loops(assembly), dots, strict=True)
        if len(products) == 64 and not any("(" in line for line in products)
    ]
    assert len(loops) == 1
    assert sum("(" in line for line in loops[0]) <= 68
    assert not any("(%rsp)" in line for line in loops[0])


@pytest.mark.slow
@pytest.mark.parametrize("job", elsewhere(CROSS))
def test_every_kernel_on_cpus_that_are_not_here(job, ahead):
    check(ahead(job), job.target)


def test_a_function_is_not_compiled_for_each_constant_it_is_called_with():
    """Numba would, and most of a first start is Numba's."""
    program = """
from edgellm.kernels import jit, waiting
jit.compile_module("team.run")
print(len(waiting.await_chunks.overloads))
"""
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout == "1\n"


def test_an_object_for_another_machine_is_that_machines(tmp_path):
    """The first object of a process, too."""
    command = [sys.executable, "-m", "edgellm.kernels.compile", str(tmp_path), "pointwise.gather"]
    environment = os.environ | {"EDGELLM_CROSS": CROSS["Pi 4"]}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    code = cache.read_object(tmp_path / "pointwise.gather.o")
    assert code is not None
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == 183  # EM_AARCH64


def test_every_target_has_its_instructions_and_a_cpu():
    assert INSTRUCTIONS.keys() == {t.name for t in targets.TARGETS}
    assert {cross.partition(",")[0] for cross in CROSS.values()} == INSTRUCTIONS.keys()
