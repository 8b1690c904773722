#!/usr/bin/env python3
"""edgellm against llama.cpp: the same file, the same threads, taken in turn in one run, as ratios.

    pip install -e '.[bench]'      # llama-cpp-python compiles llama.cpp for this machine: some ten minutes
    python bench/compare.py MODEL.gguf --prompt-tokens 256 --gen-tokens 64 --threads 1,2

Each round runs ours, then theirs; a figure is the median over the rounds, its ratio the median of the
rounds' ratios. Both get random token ids and start from an empty cache; neither samples. The peer's batch,
repacking and flash attention are at their defaults, and its line of system information is printed with the
result.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgellm import models
from edgellm.backends.base import PAGE_SIZE, BackendConfig, Batch, SequenceRows
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.gguf import open_gguf
from edgellm.hub import resolve

STEP = 256  # tokens of our largest step
CONTEXT = 1024


@dataclass(frozen=True)
class Engine:
    """One side: seconds for a prompt of n tokens, and for n tokens decoded after `context` others."""

    prefill: Callable[[list[int]], float]
    decode: Callable[[list[int], int], float]


def ours(path: str, threads: int) -> Engine:
    """edgellm's CPU backend."""
    file = open_gguf(path)
    pages = CONTEXT // PAGE_SIZE
    config = BackendConfig(num_pages=pages, max_tokens=STEP, max_outputs=1, max_sequences=1, threads=threads)
    backend = CPUBackend(models.build(file), file, config)
    table = list(range(pages))

    def feed(tokens: list[int], position: int) -> None:
        for i in range(0, len(tokens), STEP):
            part = tokens[i : i + STEP]
            last = [len(part) - 1] if i + STEP >= len(tokens) else []
            backend.execute(Batch(part, [SequenceRows(0, len(part), position + i, table)], last))

    def prefill(tokens: list[int]) -> float:
        began = time.perf_counter()
        feed(tokens, 0)
        return time.perf_counter() - began

    def decode(tokens: list[int], context: int) -> float:
        feed(tokens[: max(context, 1)], 0)
        began = time.perf_counter()
        for i, token in enumerate(tokens):
            feed([token], max(context, 1) + i)
        return time.perf_counter() - began

    return Engine(prefill, decode)


def theirs(path: str, threads: int) -> Engine:
    """llama.cpp through the low-level functions of llama-cpp-python."""
    import llama_cpp as peer

    silent = peer.llama_log_callback(lambda level, text, data: None)
    peer.llama_log_set(silent, ctypes.c_void_p(0))
    peer.llama_backend_init()
    model = peer.llama_model_load_from_file(path.encode(), peer.llama_model_default_params())
    params = peer.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = CONTEXT, threads, threads
    context_handle = peer.llama_init_from_model(model, params)
    keep = (silent, model)

    def feed(tokens: list[int]) -> None:
        array = (peer.llama_token * len(tokens))(*tokens)
        if peer.llama_decode(context_handle, peer.llama_batch_get_one(array, len(tokens))):
            sys.exit(f"llama.cpp could not decode {len(tokens)} tokens")
        peer.llama_synchronize(context_handle)

    def clear() -> None:
        assert keep
        peer.llama_memory_clear(peer.llama_get_memory(context_handle), True)

    def prefill(tokens: list[int]) -> float:
        clear()
        began = time.perf_counter()
        feed(tokens)
        return time.perf_counter() - began

    def decode(tokens: list[int], context: int) -> float:
        clear()
        feed(tokens[: max(context, 1)])
        began = time.perf_counter()
        for token in tokens:
            feed([token])
        return time.perf_counter() - began

    return Engine(prefill, decode)


def system_info() -> str:
    """What the peer says it was built for."""
    import llama_cpp as peer

    return str(peer.llama_print_system_info().decode().strip())


def compare(path: str, threads: int, tests: list[tuple[str, int]], rounds: int) -> list[dict[str, object]]:
    """A row for each test: tokens per second of both, their spread, and the ratio."""
    file = open_gguf(path)
    vocab = models.build(file).vocab_size
    rng = np.random.default_rng(0)
    sides = {"edgellm": ours(path, threads), "llama.cpp": theirs(path, threads)}
    rows: list[dict[str, object]] = []
    for kind, count in tests:
        tokens = rng.integers(0, vocab, count).tolist()
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds + 1):
            for name, engine in sides.items():
                seconds = engine.prefill(tokens) if kind == "pp" else engine.decode(tokens, 0)
                if turn:  # the first round warms up
                    speeds[name].append(count / seconds)
        ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
        rows.append(
            {
                "test": f"{kind}{count}",
                "threads": threads,
                **{name: round(statistics.median(values), 1) for name, values in speeds.items()},
                "ratio": round(statistics.median(ratios), 2),
                "ratio_min": round(min(ratios), 2),
                "ratio_max": round(max(ratios), 2),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="smollm2:135m")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--gen-tokens", type=int, default=64)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    path = str(resolve(options.model))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"# {platform.machine()}, {os.cpu_count()} CPUs{load}; llama.cpp: {system_info()}")
    tests = [("pp", options.prompt_tokens), ("tg", options.gen_tokens)]
    for threads in options.threads.split(","):
        compare(path, int(threads), tests, options.rounds)


if __name__ == "__main__":
    main()
