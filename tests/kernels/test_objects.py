"""What kernels compile to: on every target that this machine can compile for, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from edgellm.kernels import cache
from edgellm.simd import targets

# Everything outside libc would tie an object to the process that compiled it.
LIBC = {
    "clock_gettime", "memcpy", "memset", "pthread_cond_broadcast", "pthread_cond_wait", "pthread_mutex_lock",
    "pthread_mutex_unlock",
}  # fmt: skip
INSTRUCTIONS = {
    "avx512-vnni": {"matmul.q4_0": ["vpdpbusd", "zmm"], "attention.attend_f16": ["vfmadd", "vcvtph2ps"]},
    "avx2": {
        "matmul.q4_0": ["vpmaddubsw", "vpmaddwd", "ymm"],
        "attention.attend_f16": ["vfmadd", "vcvtph2ps"],
    },
    "generic": {},
}
NAMES = ["matmul.q4_0", "attention.attend_f16", "pointwise.glu_silu", "team.run", "team.work", "pack.q6_k"]
PROGRAM = """
import json, sys
from edgellm.kernels.jit import assembly, compile_module
result = {}
for name in sys.argv[1:]:
    module = compile_module(name)
    outside = [f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")]
    result[name] = {"outside": outside, "assembly": assembly(module)}
print(json.dumps(result))
"""


@pytest.mark.parametrize("target", targets.available(), ids=lambda t: t.name)
def test_objects_call_only_libc_and_use_the_targets_instructions(target):
    environment = os.environ | cache.compiler_environment(target)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *NAMES],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    compiled = json.loads(run.stdout)
    for name, facts in compiled.items():
        assert set(facts["outside"]) <= LIBC, name
    for name, wanted in INSTRUCTIONS[target.name].items():
        for instruction in wanted:
            assert instruction in compiled[name]["assembly"], (name, instruction)
    if target.name != "avx512-vnni":
        assert "zmm" not in compiled["matmul.q4_0"]["assembly"]
