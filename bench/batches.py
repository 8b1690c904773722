#!/usr/bin/env python3
"""What several rows cost in one step, beside what one costs: a sequence's next token; four of its tokens with
logits for each, as they are verified in speculation; and the next token of each of eight sequences.

    python bench/batches.py MODEL --threads 1,2

Steps of all kinds are taken in turn, after a context of 64 tokens; figures are medians.
"""

from __future__ import annotations

import statistics
import time

import arguments
from engines import Ours, Setup
from machine import Machine

from edgellm.config import MAX_THREADS

CONTEXT, SEQUENCES = 64, 8
STEPS = {"one": (1, 1), "four": (1, 4), "eight sequences": (SEQUENCES, 1)}  # sequences, tokens of each


def measure(engine: Ours, rounds: int) -> dict[str, float]:
    """Seconds of each kind of step; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in STEPS}
    for i in range(rounds + 1):
        for name, (sequences, count) in STEPS.items():
            began = time.perf_counter()
            engine.step(list(range(1, count + 1)), sequences)
            if i:
                found[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def main() -> None:
    """Parse the command line and run."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--threads", type=arguments.numbers(most=MAX_THREADS), default=[1, 2])
    parser.add_argument("--rounds", type=arguments.number(), default=13)
    options = parser.parse_args()
    path, machine = arguments.path_of(options.model), Machine()
    for threads in options.threads:
        engine = Ours(Setup(path, threads, CONTEXT + 32, SEQUENCES))
        engine.fill(list(range(CONTEXT)))
        bandwidth = machine.read_bandwidth(threads)
        seconds = measure(engine, options.rounds)
        engine.close()
        one, four, eight = seconds.values()
        print(
            f"threads {threads}: one {1e3 * one:.1f} ms, four {1e3 * four:.1f} ms ({four / one:.2f} of one), "
            f"eight sequences {1e3 * eight:.1f} ms ({SEQUENCES * one / eight:.1f} times one's tokens); "
            f"memory {bandwidth / 1e9:.0f} GB/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
