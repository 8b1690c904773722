"""Which instruction sets this CPU has. Plain Python: imports neither Numba nor a kernel."""

from __future__ import annotations

import ctypes
import platform
import sys
from dataclasses import dataclass

import llvmlite.binding as llvm

from edgellm.errors import UsageError


@dataclass(frozen=True)
class Target:
    """An instruction set and how LLVM is told of it.

    `needs` are LLVM's names of features that the CPU must have (NEON goes without saying). `cpu` None means
    this very CPU, with all it has. `token_tiles` are the sizes of matmul's register tiles, largest first, as
    they fit into the registers; `attention_tiles` attention's for prompts, for a row's heads, and for one or
    two of them. With `nibbles_in_place` a code whose nibble is the high one of its byte is multiplied there:
    by 16 or 4. With `sums_in_turn` registers do not hold the sums of both halves of a block beside a tile's
    results. With `sums_of_pairs` two products are added in 16 bits, and multiplied as they are widened. With
    `matrix_products` an instruction multiplies rows by tokens. With `codes_in_turn` registers do not hold
    both halves of a block's codes of 5 or 6 bits, nor what steps written out load.
    """

    name: str
    machine: str
    needs: frozenset[str]
    cpu: str | None
    features: str
    token_tiles: tuple[int, ...]
    attention_tiles: tuple[int, int, int]
    weight_flip: int  # xor on packed signed bytes: 0x80 where the dot product wants them unsigned
    nibbles_in_place: bool = False
    sums_in_turn: bool = False
    sums_of_pairs: bool = False
    matrix_products: bool = False
    codes_in_turn: bool = False


_AVX2 = frozenset({"avx2", "fma", "f16c"})
_VNNI = _AVX2 | {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vnni"}

TARGETS = (
    Target("avx512-vnni", "x86_64", _VNNI, None, "", (8, 4, 2, 1), (12, 4, 2), 0x80, True),
    Target(
        "avx-vnni",
        "x86_64",
        _AVX2 | {"avxvnni"},
        None,
        "",
        (4, 2, 1),
        (6, 4, 2),
        0x80,
        nibbles_in_place=True,
        sums_in_turn=True,
    ),
    Target(
        "avx2",
        "x86_64",
        _AVX2,
        "haswell",
        "+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+popcnt,+movbe",
        (4, 2, 1),
        (6, 4, 2),
        0,
        sums_of_pairs=True,
    ),
    # 32 registers of 4 lanes: two tokens take 24 as sums and results; four would spill in the inner loop.
    Target(
        "neon-i8mm",
        "aarch64",
        frozenset({"dotprod", "i8mm"}),
        None,
        "",
        (2, 1),
        (6, 4, 2),
        0,
        matrix_products=True,
    ),
    Target("neon-dotprod", "aarch64", frozenset({"dotprod"}), None, "", (2, 1), (6, 4, 2), 0),
    Target("neon", "aarch64", frozenset(), None, "", (2, 1), (6, 4, 2), 0, codes_in_turn=True),
    Target("generic", "", frozenset(), "generic", "", (2, 1), (4, 4, 2), 0),
)

# What LLVM's feature map of AArch64 lacks or guesses from the CPU's name, as the OS says it: a bit of an
# auxiliary vector entry (Linux, asm/hwcap.h), the name of a sysctl (macOS).
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_LINUX = {
    "lse": (_AT_HWCAP, 8),
    "fullfp16": (_AT_HWCAP, 10),
    "dotprod": (_AT_HWCAP, 20),
    "sve": (_AT_HWCAP, 22),
    "sve2": (_AT_HWCAP2, 1),
    "i8mm": (_AT_HWCAP2, 13),
}
_MACOS = {
    "lse": "FEAT_LSE",
    "fullfp16": "FEAT_FP16",
    "dotprod": "FEAT_DotProd",
    "i8mm": "FEAT_I8MM",
}


def machine() -> str:
    """The CPU's architecture, by one name on every OS."""
    return {"AMD64": "x86_64", "arm64": "aarch64", "ARM64": "aarch64"}.get(
        platform.machine(), platform.machine()
    )


def host_features() -> dict[str, bool]:
    """Features of this CPU by LLVM's names: what LLVM finds, corrected by the OS's word on AArch64."""
    try:
        found = dict(llvm.get_host_cpu_features())
    except RuntimeError:
        found = {}
    return found | (_os_features(sys.platform) if machine() == "aarch64" else {})


def _os_features(system: str) -> dict[str, bool]:
    """What the OS says of an AArch64 CPU; empty where it is not known how to ask."""
    if system == "linux":
        return {name: bool(_auxiliary(entry) >> bit & 1) for name, (entry, bit) in _LINUX.items()}
    if system == "darwin":
        return {name: _sysctl(f"hw.optional.arm.{key}") == 1 for name, key in _MACOS.items()}
    return {}


def _auxiliary(entry: int) -> int:
    """An entry of the auxiliary vector, 0 where there is none."""
    libc = ctypes.CDLL(None)
    libc.getauxval.argtypes, libc.getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return int(libc.getauxval(entry))


def _sysctl(name: str) -> int:
    """An integer that macOS knows by this name, or 0."""
    libc = ctypes.CDLL(None)
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    failed = libc.sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return 0 if failed else value.value


def available() -> list[Target]:
    """Targets that this CPU can run, best first."""
    here, has = machine(), {name for name, present in host_features().items() if present}
    return [t for t in TARGETS if t.machine in ("", here) and t.needs <= has]


def named(name: str) -> Target:
    """The target called `name`, whether or not this CPU has it. Raises UsageError for an unknown one."""
    for target in TARGETS:
        if target.name == name:
            return target
    raise UsageError(f"target {name!r} is not one of {', '.join(t.name for t in TARGETS)}")


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


def host_cpu() -> str:
    """LLVM's name of this CPU."""
    return str(llvm.get_host_cpu_name())


def requests(target: Target, cpu: str) -> tuple[int, int]:
    """Which tiles ask a core of this CPU (LLVM's name) for weights before their use: those of how many tokens
    and more, for codes of up to 6 bits; and for bytes.

    A Xeon's core reads 10 GB/s of 17 for a single token when left alone, and 16 when asked; a Zen 3's 13 of
    17, and 16. Zen 4's reads 30, and 22 when asked, so that only tiles ask which take longer over their
    weights than memory does. Zen 5's reads Q4_K at 29 GB/s, at 34 when asked, and bytes at the memory's
    speed. ARM's are not measured.
    """
    largest = target.token_tiles[0]
    if cpu == "znver5":
        return 1, 2
    if cpu == "znver4" or target.machine != "x86_64":
        return max(2, largest // 2), max(2, largest)
    return 1, 1


def panels_together(target: Target, cpu: str) -> int:
    """How many panels a prompt's tile takes on this CPU (LLVM's name): `two_panels.py`, `wide.py`."""
    return 2 if target.name == "avx512-vnni" and cpu == "znver5" else 1


def integer_sums(target: Target, cpu: str) -> bool:
    """Whether all sums are better added as integers on this CPU (LLVM's name). A Zen's units that multiply
    then have a step less of eleven, as others shift and add; a Xeon's do both.
    """
    return target.nibbles_in_place and cpu.startswith("znver")


def llvm_cpu(target: Target) -> tuple[str, str]:
    """LLVM's CPU name and feature string for a target, without registers wider than the target's."""
    if target.cpu is not None:
        return target.cpu, target.features
    wider = () if "avx512f" in target.needs else ("avx512", "avx10", "evex512")
    features = ",".join(
        f"{'+' if on and not name.startswith(wider) else '-'}{name}"
        for name, on in sorted(host_features().items())
    )
    return host_cpu(), features
