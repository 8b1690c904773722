"""Many inputs in one process, watched: `scripts/fuzz reader 100000 --seed 1`.

Inputs that are met with new words (of an error, or of an answer) are kept and changed further: each check
has a message of its own, so new words are code that was not reached before, found at no cost. What goes
wrong is printed with the seed and the number of the input; a run of that seed makes it again.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

MAX_SECONDS = 1.0
MAX_GROWTH = 256 * 2**20
_KEPT = 4000
_SHOWN = 20  # of each kind


class Watch:
    """Time and memory of inputs; what broke a limit or raised, by where it did.

    `limited` processes may not even reserve much more than the limit, and end when an input takes 30 s.
    """

    def __init__(self, limited: bool = False) -> None:
        self.limited = limited
        self.slowest = 0.0
        self.found: collections.Counter[str] = collections.Counter()
        self.examples: dict[str, str] = {}
        self.baseline = peak()

    def start(self) -> None:
        """From here on memory counts."""
        self.baseline = peak()
        if self.limited:
            limit_memory(MAX_GROWTH + 2**29)

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Around one input."""
        if self.limited:
            faulthandler.dump_traceback_later(30, exit=True)
        before, start = peak(), time.thread_time()
        try:
            yield
        except BaseException as error:  # panics of Rust libraries are no Exceptions
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            self.note(_where(error), name, error)
        seconds = time.thread_time() - start
        self.slowest = max(self.slowest, seconds)
        if seconds > MAX_SECONDS:
            self.note("slow", f"{name}: {seconds:.2f} s")
        if peak() > before and peak() - self.baseline > MAX_GROWTH:
            self.note("memory", f"{name}: {(peak() - self.baseline) >> 20} MiB")
            self.baseline = peak()

    def note(self, what: str, name: str, error: BaseException | None = None) -> None:
        self.found[what] += 1
        trace = "" if error is None else "".join(traceback.format_exception(error)[-6:])
        self.examples.setdefault(what, f"{name}\n{trace[-3000:]}")
        if self.limited and self.found[what] <= _SHOWN:
            print(f"found {what}: {name}\n{trace[-3000:]}", flush=True)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "edgellm" in f.filename] or frames
    return f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory(headroom: int) -> None:
    """No more address space than there is now and `headroom`: what wants more meets a MemoryError."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + headroom, size + headroom))


def reader(watch: Watch, count: int, seed: int) -> int:
    """Inputs for the GGUF reader; gives how many different outcomes there were."""
    from fuzz import models, seeds
    from fuzz import reader as subject

    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
    words: set[tuple[str, ...]] = set()
    kept = list(seeds.seeds())
    try:
        for model in kept:
            subject.exercise(subject.put(folder, models.write(model)))
        watch.start()
        for i in _numbers(watch, count, words):
            made, model = subject.make(Random(f"{seed}/{i}"), kept if i % 3 else seeds.seeds())
            path = subject.put(folder, made)
            with watch.one(f"reader seed {seed} input {i}"):
                outcome = subject.exercise(path)
                if outcome not in words:
                    words.add(outcome)
                    if model is not None and len(kept) < _KEPT:
                        kept.append(model)
    finally:
        shutil.rmtree(folder)
    return len(words)


def renderer(watch: Watch, count: int, seed: int) -> int:
    """Inputs for the renderer; gives how many different outcomes there were."""
    from fuzz import renderer as subject

    words: set[str] = set()
    subject.warm_up()
    watch.start()
    kept: list[str] = []
    numbers = _numbers(watch, count, words)
    for i in numbers:
        rng = Random(f"{seed}/{i}")
        source, conversations = subject.make(rng, kept)
        name = f"renderer seed {seed} input {i}"
        template: Any = None
        with watch.one(name):
            template = subject.compiled(source)
        outcome = template if isinstance(template, str) else ""
        for number in [i, *islice(numbers, conversations - 1)] if template and not outcome else []:
            with watch.one(f"{name}, rendering {number - i}"):
                outcome = subject.rendered(template, rng)
                if outcome not in words and len(kept) < _KEPT and len(source) < 4000:
                    kept.append(source)
                words.add(outcome)
        words.add(outcome)
    return len(words)


def _numbers(watch: Watch, count: int, words: set[Any]) -> Iterator[int]:
    """0, 1, ..., with a word about how it goes now and then."""
    start = time.perf_counter()
    for i in range(count):
        yield i
        if watch.limited and ((i + 1) % 10_000 == 0 or i + 1 == count):
            rate = (i + 1) / (time.perf_counter() - start)
            growth = max(0, peak() - watch.baseline) >> 20
            print(
                f"{i + 1} inputs, {rate:.0f}/s, {len(words)} outcomes, slowest {watch.slowest:.3f} s CPU, "
                f"peak +{growth} MiB, {sum(watch.found.values())} found",
                flush=True,
            )


SUBJECTS: dict[str, Callable[[Watch, int, int], int]] = {"reader": reader, "renderer": renderer}


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("count", type=int, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="other inputs (default: 0)")
    args = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    faulthandler.enable()
    watch = Watch(limited=True)
    SUBJECTS[args.subject](watch, args.count, args.seed)
    faulthandler.cancel_dump_traceback_later()
    print(f"{args.count} inputs for the {args.subject}, {sum(watch.found.values())} of them found something")
    for what, times in watch.found.most_common():
        print(f"{times} x {what}: {watch.examples[what].splitlines()[0]}")
    return bool(watch.found)


if __name__ == "__main__":
    sys.exit(main())
