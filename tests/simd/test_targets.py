"""Which instruction sets a CPU has: the registry, the OS's word, and the names a person may force."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

import pytest

from edgellm.config import load_config
from edgellm.errors import UsageError
from edgellm.kernels import layout
from edgellm.simd import lowering, targets


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda t: t.name)
def test_every_target_has_a_lowering_and_tiles_that_chunks_are_made_of(target):
    assert isinstance(lowering.find(target.name), lowering.Lowering)
    assert target.token_tiles == tuple(sorted(target.token_tiles, reverse=True))
    assert target.token_tiles[-1] == 1
    assert all(layout.MM_TOKENS % tile == 0 for tile in target.token_tiles)
    assert targets.named(target.name) is target


def test_names_are_unique_and_the_last_runs_anywhere():
    names = [t.name for t in targets.TARGETS]
    assert len(set(names)) == len(names)
    assert targets.TARGETS[-1].needs == frozenset()
    assert targets.TARGETS[-1].machine == ""


@pytest.fixture
def arm(monkeypatch):
    """`arm(...)`: pretend to be an AArch64 of so many features."""

    def become(system="Linux", llvm=None, **features):
        monkeypatch.setattr(platform, "machine", lambda: "aarch64" if system == "Linux" else "arm64")
        monkeypatch.setattr(targets.llvm, "get_host_cpu_features", lambda: llvm or {"neon": True})
        monkeypatch.setattr(targets, "_os_features", lambda system: features)
        return [t.name for t in targets.available()]

    return become


def test_the_best_target_follows_what_the_os_says(arm):
    assert arm(dotprod=False, i8mm=False) == ["neon", "generic"]
    assert arm(dotprod=True, i8mm=False) == ["neon-dotprod", "neon", "generic"]
    assert arm(dotprod=True, i8mm=True) == ["neon-i8mm", "neon-dotprod", "neon", "generic"]
    assert arm("Darwin", dotprod=True, i8mm=False)[0] == "neon-dotprod"
    assert arm() == ["neon", "generic"]


def test_the_os_overrules_llvm(arm, monkeypatch):
    monkeypatch.setattr(targets.llvm, "get_host_cpu_name", lambda: "neoverse-n2")
    names = arm(llvm={"neon": True, "sve": True, "dotprod": True}, dotprod=False, sve=False)
    assert names == ["neon", "generic"]
    cpu, features = targets.llvm_cpu(targets.choose("neon"))
    assert cpu == "neoverse-n2"
    assert set(features.split(",")) == {"+neon", "-sve", "-dotprod"}


def test_a_target_has_no_registers_wider_than_its_own(monkeypatch):
    has = {"avxvnni": True, "avx512f": True, "avx512vnni": True, "avx2": True, "sse4a": False}
    monkeypatch.setattr(targets, "host_features", lambda: has)
    narrow = targets.llvm_cpu(targets.named("avx-vnni"))[1].split(",")
    assert set(narrow) == {"+avxvnni", "-avx512f", "-avx512vnni", "+avx2", "-sse4a"}
    assert "+avx512f" in targets.llvm_cpu(targets.named("avx512-vnni"))[1].split(",")


@pytest.mark.parametrize(
    ("target", "cpu", "wanted"),
    [
        ("avx512-vnni", "znver5", (1, 2)),
        ("avx512-vnni", "znver4", (4, 8)),
        ("avx2", "znver3", (1, 1)),
        ("avx512-vnni", "sapphirerapids", (1, 1)),
        ("avx-vnni", "alderlake", (1, 1)),
        ("neon", "cortex-a72", (2, 2)),
    ],
)
def test_software_asks_for_weights_where_the_cpu_does_not(target, cpu, wanted):
    assert targets.requests(targets.named(target), cpu) == wanted


@pytest.mark.parametrize(
    ("target", "cpu", "wanted"),
    [
        ("avx512-vnni", "znver4", True),
        ("avx512-vnni", "sapphirerapids", False),
        ("avx2", "znver4", False),
        ("neon-i8mm", "apple-m2", False),
    ],
)
def test_sums_are_integers_where_other_units_add_them(target, cpu, wanted):
    assert targets.integer_sums(targets.named(target), cpu) is wanted


def test_llvm_may_know_nothing(arm, monkeypatch):
    arm(dotprod=True)

    def fail():
        raise RuntimeError("no host features here")

    monkeypatch.setattr(targets.llvm, "get_host_cpu_features", fail)
    assert targets.choose().name == "neon-dotprod"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({16: 0x887, 26: 0}, set()),  # a Pi 4's
        ({16: 0x119FFF, 26: 0}, {"lse", "fullfp16", "dotprod"}),  # a Pi 5's
        ({16: 1 << 20 | 1 << 22, 26: 1 << 1 | 1 << 13}, {"dotprod", "sve", "sve2", "i8mm"}),
    ],
    ids=["none", "dotprod", "i8mm"],
)
def test_linux_says_it_in_the_auxiliary_vector(monkeypatch, words, wanted):
    monkeypatch.setattr(targets, "_auxiliary", words.__getitem__)
    features = targets._os_features("linux")
    assert features.keys() == targets._LINUX.keys()
    assert {name for name, present in features.items() if present} == wanted


def test_macos_says_it_by_name(monkeypatch):
    asked = {"hw.optional.arm.FEAT_DotProd": 1, "hw.optional.arm.FEAT_I8MM": 0, "hw.optional.arm.FEAT_LSE": 1}
    monkeypatch.setattr(targets, "_sysctl", lambda name: asked.get(name, 0))
    found = targets._os_features("darwin")
    assert {name for name, present in found.items() if present} == {"dotprod", "lse"}


def test_a_sysctl_is_an_int_or_nothing(monkeypatch):
    class Libc:
        @staticmethod
        def sysctlbyname(name, value, size, new, new_size):
            if name != b"there":
                return -1
            ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = 1
            return 0

    monkeypatch.setattr(targets.ctypes, "CDLL", lambda name: Libc)
    assert (targets._sysctl("there"), targets._sysctl("elsewhere")) == (1, 0)


def test_of_an_os_that_is_not_known_only_llvm_is_asked():
    assert targets._os_features("plan9") == {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="getauxval is Linux's")
def test_the_auxiliary_vector_is_really_read():
    assert targets._auxiliary(6) == os.sysconf("SC_PAGE_SIZE")  # AT_PAGESZ


def test_unknown_names_are_refused_with_the_known_ones(monkeypatch):
    with pytest.raises(UsageError, match=r"'sse9'.*generic"):
        targets.choose("sse9")
    with pytest.raises(UsageError, match=r"'sse9'.*neon-dotprod.*generic"):
        targets.named("sse9")


def test_another_machine_is_named_in_one_variable(monkeypatch):
    monkeypatch.setenv("EDGELLM_CROSS", "neon,aarch64-linux-gnu,cortex-a72,+crc,-lse")
    cross = load_config().cross
    assert cross is not None
    assert (cross.target, cross.triple, cross.cpu) == ("neon", "aarch64-linux-gnu", "cortex-a72")
    assert cross.features == "+crc,-lse"
    monkeypatch.setenv("EDGELLM_CROSS", "neon")
    with pytest.raises(UsageError, match=r"'neon'.*target,triple,cpu"):
        load_config()
