#!/usr/bin/env python3
"""What kernels cost, as a ratio to a loop that is timed beside them.

    scripts/bench-kernels               # the costs on this machine now, and what they were
    scripts/bench-kernels matmul.q4_0   # of the cases whose names begin so
    scripts/bench-kernels --record      # keep them as this CPU's baseline, in bench/baselines.json

A cost is seconds of the kernel over seconds of the loop (`calibrate.py`: multiply-adds, or reading the same
memory), each the best of many short rounds, in turn: the clock's speed cancels out, and so does a neighbour
who takes the core away. One thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import calibrate
from kernel_cases import CASES, Work

from edgellm.config import load_config
from edgellm.simd import targets

BASELINES = Path(__file__).resolve().parent / "baselines.json"
ALLOWED = 1.25  # times the baseline's cost
ROUNDS = 40
MEMORY_ROUNDS = 150  # more, because memory is shared with everybody
ATTEMPTS = 6
PASSES, RECORDINGS = 3, 9


def cost(work: Work, more: int = 1) -> float:
    """Seconds of the kernel over seconds of its loop, the best of each; `more` times the usual rounds."""
    paces = [calibrate.read(piece) for piece in work.pieces] or [calibrate.multiply_adds()]
    best_pace = best_run = float("inf")
    for i in range(-len(work.runs), more * (MEMORY_ROUNDS if work.pieces else ROUNDS)):
        paced, ran = _timed(paces[2 * i % len(paces)], work.runs[(2 * i + 1) % len(work.runs)])
        if i >= 0:  # before, code and data are fetched, and pieces that a cache holds since they were made go
            best_pace, best_run = min(best_pace, paced), min(best_run, ran)
    return best_run / best_pace


def _timed(pace: Callable[[], object], run: Callable[[], None]) -> tuple[float, float]:
    """Seconds of one and of the other, with no garbage collected between."""
    collects = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        pace()
        between = time.perf_counter()
        run()
        return between - began, time.perf_counter() - between
    finally:
        if collects:
            gc.enable()


def least_cost(case: Callable[[], Work], enough: float, pause: float = 1.0) -> float:
    """The least of up to ATTEMPTS costs, until one is `enough`. Each has more rounds than the one before and
    comes a while later, because a neighbour can make a kernel look slow for as long as it stays (by a quarter
    and more, without the loop beside it, where two machines share a core); and each has memory of its own,
    because a cache holds less of some pages than of others.
    """
    least = float("inf")
    for attempt in range(ATTEMPTS):
        time.sleep(pause * attempt)
        work = case()
        least = min(least, cost(work, 1 + attempt))
        if least <= enough:
            break
    return least


def cpu_name() -> str:
    """The CPU's model, LLVM's name of its kind, and the target: what a baseline is for. A host may call all
    its CPUs "AMD EPYC", though a Zen 5 multiplies twice as many bytes in a cycle as a Zen 4.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model} ({targets.host_cpu()}), {targets.choose(load_config().target).name}"


def _baselines() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    return found


def baseline() -> dict[str, float]:
    """This CPU's recorded costs, by case; none if it was never recorded."""
    return _baselines().get(cpu_name(), {})


def record(costs: dict[str, float]) -> None:
    """Keep these costs as this CPU's, beside those of cases that still exist and were not measured now."""
    kept = {name: value for name, value in baseline().items() if name in CASES}
    rounded = {name: float(f"{value:.4g}") for name, value in costs.items()}
    everything = _baselines() | {cpu_name(): kept | rounded}
    BASELINES.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def chosen(prefixes: Sequence[str]) -> list[str]:
    """Names of the cases that begin with one of `prefixes`; all for none."""
    return [name for name in CASES if not prefixes or name.startswith(tuple(prefixes))]


def measure(names: Sequence[str], times: int) -> dict[str, float]:
    """The lower quartile of so many costs of each case: neighbours add more often than they take. Passes go
    over all of them, so a bad minute is shared.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(times):
        for name in names:
            found[name].append(cost(CASES[name]()))
    return {name: sorted(costs)[times // 4] for name, costs in found.items()}


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of cases' names; all of them if there are none")
    parser.add_argument("--record", action="store_true", help="keep the costs as this CPU's baseline")
    parser.add_argument("--json", action="store_true", help="measure once, print one JSON document")
    options = parser.parse_intermixed_args()
    names = chosen(options.names)
    if not names:
        known = dict.fromkeys(name.partition(" ")[0] for name in CASES)
        parser.error(f"no case begins with {' or '.join(options.names)}; there are {', '.join(known)}")
    costs = measure(names, 1 if options.json else RECORDINGS if options.record else PASSES)
    if options.json:
        print(json.dumps(costs))
    else:
        report(costs, baseline())
    if options.record:
        record(costs)
        print(f"recorded for {cpu_name()}")


def report(costs: dict[str, float], known: dict[str, float]) -> None:
    """A line for each case."""
    for name, value in costs.items():
        was = f"{value / known[name]:6.2f} of the baseline" if name in known else ""
        print(f"{name:<40} {value:8.4f} {was}".rstrip())


if __name__ == "__main__":
    main()
