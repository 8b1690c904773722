"""What `scripts/pi` checks: detection, kernel tests and one answer on each emulated CPU, and the same bits on all.

Kernels are compiled here and put where the emulated process looks for them: it could not start a compiler, and
this is ten times faster. That its own compiler would write the same is checked with one kernel.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import edgellm.kernels
from edgellm.config import DEFAULT_MODEL
from edgellm.hub import resolve
from edgellm.kernels import cache
from edgellm.simd import targets

ROOT = Path(__file__).resolve().parents[1]
CPUS = {"pi4": "neon", "pi5": "neon-dotprod", "n2": "neon-i8mm"}
TRIPLE = "aarch64-unknown-linux-gnu"
SAMPLE = "matmul.q4_0"
TESTS = ["tests/kernels/test_matmul.py", "tests/kernels/test_pointwise.py", "tests/kernels/test_attention.py"]

DETECT = """
import json
from edgellm.kernels import cache
from edgellm.simd import targets
target = targets.choose()
cpu, features = targets.llvm_cpu(target)
print(json.dumps([target.name, cpu, features, str(cache.cache_folder(target))]))
"""
COMPILE = """
import hashlib, sys
from edgellm.kernels.jit import compile_kernel
print(hashlib.sha256(compile_kernel(sys.argv[1])).hexdigest())
"""
ANSWER = """
import hashlib, json, sys
import edgellm
with edgellm.LLM(sys.argv[1], context_length=256, threads=2) as llm:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = llm.chat(question, params=edgellm.SamplingParams(temperature=0, max_tokens=12))
    logits = llm.logits([*answer.prompt_token_ids, *answer.token_ids])
    print(json.dumps([answer.text, answer.token_ids, hashlib.sha256(logits.tobytes()).hexdigest()]))
"""


def run(command: list[str], **variables: str) -> str:
    """What a command prints; ends the script if it fails."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EDGELLM_", "NUMBA_"))}
    done = subprocess.run(
        command, env=environment | variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def kernel_names() -> list[str]:
    """Every kernel there is. In a child, as finding them imports the compiler."""
    program = (
        "import importlib, pkgutil, edgellm.kernels as package\n"
        "from edgellm.kernels import jit\n"
        "for m in pkgutil.iter_modules(package.__path__):\n"
        "    m.name == 'compile' or importlib.import_module(f'edgellm.kernels.{m.name}')\n"
        "print(*sorted(jit._KERNELS))\n"
    )
    return run([sys.executable, "-c", program]).split()
