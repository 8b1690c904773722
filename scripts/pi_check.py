"""What `scripts/pi` checks on each emulated CPU: detection, kernel tests and an answer, the same on all.

Kernels are compiled here and put where the emulated process looks for them: it could not start a compiler,
and this is far faster. That its own compiler would write the same is checked with one kernel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from edgellm.config import DEFAULT_MODEL, load_config
from edgellm.hub import resolve
from edgellm.simd import targets

ROOT = Path(__file__).resolve().parents[1]
CPUS = {"pi4": "neon", "pi5": "neon-dotprod", "n2": "neon-i8mm"}
TRIPLE = "aarch64-unknown-linux-gnu"
SAMPLE = "matmul.q4_0"
_FILES = ("matmul", "pointwise", "attention", "sample", "embed_rows")
TESTS = [f"tests/kernels/test_{name}.py" for name in _FILES]

DETECT = """
import json
from edgellm.kernels import cache
from edgellm.simd import targets
target = targets.choose()
cpu, features = targets.llvm_cpu(target)
print(json.dumps([target.name, cpu, features, str(cache.cache_folder(target))]))
"""
COMPILE = r"""
import hashlib, re, sys
from edgellm.kernels import jit
text = jit.assembly(jit.compile_module(sys.argv[1]))
# Numba names functions by their addresses, too.
print(hashlib.sha256(re.sub("at_200x[0-9a-f]+", "", text).encode()).hexdigest())
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


def prepare(python: str, target: str, home: str) -> None:
    """Check what the emulated CPU is taken for, and compile its kernels."""
    name, cpu, features, folder = json.loads(run([python, "-c", DETECT], EDGELLM_HOME=home))
    if name != target:
        sys.exit(f"{python} was taken for {name}, and should be {target}")
    cross = ",".join([name, TRIPLE, cpu, features])
    variables = {"EDGELLM_CROSS": cross, "EDGELLM_HOME": home}
    run([sys.executable, "-m", "edgellm.kernels.compile", folder], **variables)
    here, there = (
        run([sys.executable, "-c", COMPILE, SAMPLE], **variables),
        run([python, "-c", COMPILE, SAMPLE]),
    )
    if here != there:
        sys.exit(f"{python} compiles another {SAMPLE} than this machine does for it")


def answer(python: str, model: str, home: str, **variables: str) -> list[object]:
    """Text, tokens and a hash of all logits of one greedy answer."""
    out: list[object] = json.loads(run([python, "-c", ANSWER, model], EDGELLM_HOME=home, **variables))
    return out


def main(folder: Path) -> None:
    """Every check on every CPU; ends with a message at the first that fails."""
    model, home = str(resolve(DEFAULT_MODEL)), str(folder / "home")
    os.environ["PYTHONPATH"] = str(ROOT)
    answers: dict[str, list[object]] = {}
    for target in targets.available():
        if target.name != "generic":  # two roundings where the others have one
            here = str(load_config().home)
            answers[target.name] = answer(sys.executable, model, here, EDGELLM_TARGET=target.name)
            print(f"here, {target.name}: {answers[target.name]}", flush=True)
    for launcher, target_name in CPUS.items():
        python = str(folder / launcher)
        prepare(python, target_name, home)
        print(f"{launcher}: is {target_name}, and compiles as this machine does for it", flush=True)
        options = ["-q", "-x", "-o", "addopts="]  # without the plugins that they name
        tests = run([python, "-m", "pytest", *options, *TESTS], EDGELLM_HOME=home)
        print(f"{launcher}: {tests.strip().splitlines()[-1]}", flush=True)
        answers[launcher] = answer(python, model, home)
        print(f"{launcher}: {answers[launcher]}", flush=True)
    if len({json.dumps(a) for a in answers.values()}) != 1:
        sys.exit("the answers differ")
    print("the same tokens and the same logits, bit by bit, on all of them")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("scripts/pi runs this, with the folder of the emulators")
    main(Path(sys.argv[1]))
