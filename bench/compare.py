#!/usr/bin/env python3
"""edgellm against llama.cpp: the same file, the same threads, taken in turn in one run, as ratios.

    pip install -e '.[bench]'      # llama-cpp-python compiles llama.cpp for this machine: some ten minutes
    python bench/compare.py MODEL.gguf --tests pp128,pp512,tg64,tg32@2048,tg32x8 --threads 1,2

Tests: ppN a prompt of N tokens; tgN N tokens decoded after an empty context, tgN@C after one of C tokens,
tgNxB in B sequences at once (tokens per second are those of all). Each round runs ours, then theirs; a figure
is the median over the rounds, its ratio the median of the rounds' ratios, with the least and the largest. In
each round the machine is probed as well, by the same number of threads: the bytes it reads in a second, the
int8 products it makes. Decoding is given as a share of the first (the bytes of the file that a step reads),
prompts as a share of the second (the products of all layers' weights, though of the last layer's most are
made for the last token only). Both sides get random token ids, neither samples; the peer's batch, repacking
and flash attention are at their defaults, and its line of system information is printed with the result.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

import arguments
import numpy as np
from engines import Engine, LlamaCpp, Ours, Setup, system_info
from machine import TARGET, Machine

from edgellm import models
from edgellm.config import MAX_THREADS
from edgellm.gguf import open_gguf
from edgellm.graph import ops

DEFAULT_TESTS = "pp128,pp512,tg64,tg64@2048,tg32x4,tg32x8"


@dataclass(frozen=True)
class Test:
    """ppN, tgN, tgN@C, tgNxB."""

    name: str
    kind: str
    tokens: int
    context: int = 0
    sequences: int = 1

    @classmethod
    def parse(cls, name: str) -> Test:
        n = "([1-9][0-9]{0,6})"
        match = re.fullmatch(f"(?:pp{n}|tg{n}(?:@{n})?(?:x{n})?)", name)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"{name[:40]!r} is none of ppN, tgN, tgN@CONTEXT, tgNxSEQUENCES, with numbers of at least 1"
            )
        prompt, tokens, context, sequences = match.groups()
        return cls(name, name[:2], int(prompt or tokens), int(context or 0), int(sequences or 1))

    @classmethod
    def parse_all(cls, names: str) -> list[Test]:
        """Tests by their names, with commas between."""
        return [cls.parse(name) for name in names.split(",")]


@dataclass(frozen=True)
class Model:
    """What a model's figures are shares of."""

    path: str
    vocab: int
    step_bytes: int  # of the file, that a step reads
    token_operations: int  # of all layers' products, for a token

    @classmethod
    def open(cls, path: str) -> Model:
        with open_gguf(path) as file:
            graph = models.build(file)
            inner = [
                n for n in graph.nodes if isinstance(n.op, ops.MatMul) and n.outputs[0] is not graph.output
            ]
            weights = [w for n in inner for w in n.weights[:1] if w is not None]
            return cls(
                path,
                graph.vocab_size,
                sum(file.tensors[w].nbytes for w in graph.weights_of_a_step()),
                sum(2 * w.shape[0] * w.shape[1] for w in weights),
            )


def measure(side: Engine, test: Test, tokens: list[int]) -> float:
    """Tokens per second of one run."""
    seconds = side.prefill(tokens) if test.kind == "pp" else side.decode(tokens, test.sequences)
    return test.tokens * test.sequences / seconds


def compare(
    model: Model, test: Test, threads: int, rounds: int, kv_type: str, machine: Machine
) -> dict[str, object]:
    """A row: tokens per second of both sides, ratio and spread, the share of the machine's limit."""
    tokens = np.random.default_rng(0).integers(0, model.vocab, max(test.tokens, test.context)).tolist()
    setup = Setup(model.path, threads, test.context + test.tokens + 32, test.sequences, kv_type)
    sides: dict[str, Engine] = {"edgellm": Ours(setup), "llama.cpp": LlamaCpp(setup)}
    for side in sides.values():
        if test.context:
            side.fill(tokens[: test.context])
        measure(side, test, tokens[: min(test.tokens, 512)])  # warms up
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    limits = []
    for _ in range(rounds):
        limits.append(
            machine.read_bandwidth(threads, 1) if test.kind == "tg" else machine.int8_peak(threads, 1)
        )
        for name, side in sides.items():
            speeds[name].append(measure(side, test, tokens[: test.tokens]))
    for side in sides.values():
        side.close()
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    ours = statistics.median(speeds["edgellm"])
    work = model.step_bytes / test.sequences if test.kind == "tg" else model.token_operations
    return {
        "test": test.name,
        "threads": threads,
        **{name: round(statistics.median(values), 1) for name, values in speeds.items()},
        "ratio": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "limit": f"{max(limits) / 1e9:.0f} {'GB/s' if test.kind == 'tg' else 'GOPS'}",
        "share": round(ours * work / max(limits), 2),
    }


def commit() -> str:
    """The commit that is measured."""
    folder = Path(__file__).parent
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "no commit"


def heading() -> str:
    """When, where and what: one line."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.date.today()}, {commit()}, {platform.machine()}, {os.cpu_count()} CPUs{load}, "
        f"target {TARGET}; llama.cpp: {system_info()}"
    )


def main() -> None:
    """Parse the command line and run."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--tests", type=Test.parse_all, default=DEFAULT_TESTS)
    parser.add_argument("--threads", type=arguments.numbers(most=MAX_THREADS), default=[1, 2])
    parser.add_argument("--rounds", type=arguments.number(), default=5)
    parser.add_argument("--kv-type", choices=("f32", "f16", "q8_0"), default="f16")
    parser.add_argument("--markdown", action="store_true", help="rows of a table instead of JSON")
    options = parser.parse_args()
    model = Model.open(arguments.path_of(options.model))
    print(f"# {heading()}", flush=True)
    machine = Machine()
    for threads in options.threads:
        for test in options.tests:
            row = compare(model, test, threads, options.rounds, options.kv_type, machine)
            print(markdown(row) if options.markdown else json.dumps(row), flush=True)


def markdown(row: dict[str, object]) -> str:
    """A row of bench/RESULTS.md."""
    spread = f"{row['ratio']} ({row['ratio_min']}-{row['ratio_max']})"
    cells = (
        row["test"],
        row["threads"],
        row["edgellm"],
        row["llama.cpp"],
        spread,
        f"{row['share']} of {row['limit']}",
    )
    return "| | " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
