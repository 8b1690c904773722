"""Which instruction sets this CPU has. Plain Python: imports neither Numba nor a kernel."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import llvmlite.binding as llvm

from edgellm.errors import UsageError


@dataclass(frozen=True)
class Target:
    """An instruction set and how LLVM is told of it.

    `needs` are LLVM's names of features that the CPU must have. `cpu` None means this very CPU, with all
    it has. `token_tiles` are the sizes of matmul's register tiles, largest first: what fits into the
    registers.
    """

    name: str
    machine: str
    needs: frozenset[str]
    cpu: str | None
    features: str
    token_tiles: tuple[int, ...]
    weight_flip: int  # xor on packed signed bytes: 0x80 where the dot product wants them unsigned


_AVX2 = frozenset({"avx2", "fma", "f16c"})
_VNNI = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"}

TARGETS = (
    Target("avx512-vnni", "x86_64", _VNNI, None, "", (8, 4, 2, 1), 0x80),
    Target(
        "avx2", "x86_64", _AVX2, "haswell", "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+movbe", (4, 2, 1), 0
    ),
    Target("generic", "", frozenset(), "generic", "", (2, 1), 0),
)


def host_features() -> dict[str, bool]:
    """LLVM's features of this CPU; empty where LLVM cannot tell."""
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


def available() -> list[Target]:
    """Targets that this CPU can run, best first."""
    machine = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    has = {name for name, present in host_features().items() if present}
    return [t for t in TARGETS if t.machine in ("", machine) and t.needs <= has]


def choose(name: str | None = None) -> Target:
    """The target called `name`, or the best. Raises UsageError for one that this CPU does not have."""
    here = available()
    if name is None:
        return here[0]
    for target in here:
        if target.name == name:
            return target
    raise UsageError(
        f"target {name!r} is not one this CPU has; it has {', '.join(t.name for t in here)}", "EDGELLM_TARGET"
    )


def llvm_cpu(target: Target) -> tuple[str, str]:
    """LLVM's CPU name and feature string for a target."""
    if target.cpu is not None:
        return target.cpu, target.features
    features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(host_features().items()))
    return llvm.get_host_cpu_name(), features
