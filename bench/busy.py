#!/usr/bin/env python3
"""Decoding beside other programs: one and all threads, alone and with spinning neighbours.

    python bench/busy.py MODEL --neighbours 0,1,2

A neighbour is a process that does nothing but count. Rounds go through all cases in turn; figures are
medians of tokens per second.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics

import arguments
from engines import Ours, Setup

TOKENS = 48


def spin() -> None:
    """Keep a core busy."""
    count = 0
    while True:
        count += 1


def rate(engine: Ours, neighbours: int) -> float:
    """Tokens per second beside so many neighbours."""
    spinners = [multiprocessing.Process(target=spin, daemon=True) for _ in range(neighbours)]
    for spinner in spinners:
        spinner.start()
    try:
        engine.decode(list(range(8)), 1)
        return TOKENS / engine.decode(list(range(1, TOKENS + 1)), 1)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.join()


def main() -> None:
    """Parse the command line and run."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--neighbours", type=arguments.numbers(0), default=[0, 1, 2])
    parser.add_argument("--rounds", type=arguments.number(), default=5)
    options = parser.parse_args()
    path, most = arguments.path_of(options.model), os.cpu_count() or 1
    engines = {threads: Ours(Setup(path, threads, 128)) for threads in sorted({1, most})}
    found: dict[tuple[int, int], list[float]] = {}
    for _ in range(options.rounds):
        for threads, engine in engines.items():
            for neighbours in options.neighbours:
                found.setdefault((threads, neighbours), []).append(rate(engine, neighbours))
    for (threads, neighbours), rates in found.items():
        spread = f"({min(rates):.1f}-{max(rates):.1f})"
        print(f"threads {threads}, neighbours {neighbours}: {statistics.median(rates):6.1f} tok/s {spread}")


if __name__ == "__main__":
    main()
