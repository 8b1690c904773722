#!/usr/bin/env python3
"""What a token costs beside the model: choosing it, its text, and its delivery, as a share of a step.

    python bench/sampling.py MODEL --threads 2

Counted is the plan's last op, which draws, and of the engine's Python what prepares a draw and what becomes
of its token (text, stop strings, the event to whoever asked). Not counted are scheduling and the rest of
the step's header. Rounds go through all cases in turn; figures are medians.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import arguments

import edgellm
from edgellm.backends.cpu import header
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.config import MAX_THREADS
from edgellm.engine.core import Core
from edgellm.engine.job import GenerationJob

ALL = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "the defaults": {},
    "penalties": {"repeat_penalty": 1.1},
    "plain": {**ALL, "temperature": 1},
    "top_p of all": {**ALL, "top_p": 0.95},
    "typical_p of all": {**ALL, "typical_p": 0.9},
    "top_n_sigma of all": {**ALL, "top_n_sigma": 1.0},
    "xtc of all": {**ALL, "xtc_probability": 1},
}
_seconds: defaultdict[str, float] = defaultdict(float)


def timed(owner: Any, name: str) -> None:
    """From now on, add up what calls of `owner.name` take."""
    function: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        result = function(*args, **keywords)
        _seconds["Python"] += time.perf_counter() - began
        return result

    setattr(owner, name, call)


def time_plans() -> None:
    """From now on, add up what the last op takes, and count steps."""
    execute = CPUBackend.execute

    def call(self: CPUBackend, batch: Any) -> Any:
        if self._plan.times is None:
            self._plan.trace()
        result = execute(self, batch)
        assert self._plan.times is not None
        _seconds["draw"] += float(self._plan.times[-1] - self._plan.times[-2]) / 1e9
        _seconds["steps"] += 1
        return result

    CPUBackend.execute = call  # type: ignore[method-assign]


def measure(llm: edgellm.LLM, tokens: int, **case: Any) -> tuple[float, float, float]:
    """Milliseconds a step: in all, in the draw, and in Python for it."""
    params = edgellm.SamplingParams(max_tokens=tokens, seed=1, ignore_eos=True, **case)
    _seconds.clear()
    began = time.perf_counter()
    for _ in llm.stream([1, 2, 3], params):
        pass
    scale = 1e3 / _seconds["steps"]
    return (time.perf_counter() - began) * scale, _seconds["draw"] * scale, _seconds["Python"] * scale


def main() -> None:
    """Parse the command line and run."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--threads", type=arguments.number(most=MAX_THREADS), default=os.cpu_count() or 1)
    parser.add_argument("--tokens", type=arguments.number(), default=25)
    parser.add_argument("--rounds", type=arguments.number(), default=7)
    options = parser.parse_args()
    path = arguments.path_of(options.model)
    for owner, name in ((Core, "finish"), (GenerationJob, "draw"), (header, "DrawTable")):
        timed(owner, name)
    time_plans()
    found: defaultdict[str, list[tuple[float, float, float]]] = defaultdict(list)
    with edgellm.LLM(path, threads=options.threads, context_length=512) as llm:
        for _ in range(options.rounds):
            for name, case in CASES.items():
                found[name].append(measure(llm, options.tokens, **case))
    for name, figures in found.items():
        step, draw, python = (statistics.median(column) for column in zip(*figures, strict=True))
        shares = 100 * statistics.median((d + p) / s for s, d, p in figures)
        print(f"{name:18s} draw {draw:.3f} ms, Python {python:.3f} ms: {shares:.1f}% of {step:.2f} ms")


if __name__ == "__main__":
    main()
