#!/usr/bin/env python3
"""What `scripts/bench-commits` runs: two worktrees, the same measurements in each by turns, ratios.

Each commit has its own kernels and its own `bench/kernel_cases.py`, which knows how they are called; how they
are timed is this checkout's, and so are the cases of a commit that has none. Cases are compared by name. A
ratio is what the second commit costs over what the first does, in one round; a line gives the median over the
rounds, the least and the largest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
NOTHING = 0.03  # a median ratio this near to 1 is called equal
MODEL = "model"
METHOD = ("bench/calibrate.py", "bench/kernels.py")
CASES = ("bench/kernel_cases.py", "tests/kernels/harness.py")
Costs = dict[str, float]


@contextlib.contextmanager
def worktree(root: Path, commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of `commit` of the repository `root` at `folder`, removed whatever happens."""
    try:
        _git(root, "worktree", "add", "--quiet", "--detach", str(folder), commit)
        yield folder
    finally:
        with _undisturbed():
            shutil.rmtree(folder, ignore_errors=True)
            _git(root, "worktree", "prune")


def _git(root: Path, *arguments: str) -> str:
    """What git says; in a session of its own, where a Ctrl-C of the terminal does not reach it."""
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    if done.returncode:
        sys.exit(f"bench-commits: {' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not stop the tidying up."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def lend(root: Path, tree: Path) -> None:
    """Put this checkout's way of timing into a worktree, and its cases if it has none."""
    borrowed = METHOD if (tree / CASES[0]).exists() else METHOD + CASES
    for name in borrowed:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, tree / name)


@dataclass
class Side:
    """A commit in its worktree, with what went wrong there."""

    name: str
    tree: Path
    trouble: set[str] = field(default_factory=set)

    def measure(self, names: Sequence[str], model: bool) -> Costs:
        """Costs by name: of kernels relative to a loop, of the default model in seconds a token."""
        costs: Costs = {}
        if names or not model:
            found = self._json(["bench/kernels.py", "--json", *names])
            costs |= found if isinstance(found, dict) else {}
        if model:
            sizes = ["--prompt-tokens", "256", "--gen-tokens", "48", "--repeat", "3", "--json"]
            rows = self._json(["-m", "edgellm", "bench", *sizes])
            costs |= {
                f"{MODEL} {row['test']}": 1 / row["tokens_per_second"]
                for row in (rows if isinstance(rows, list) else [])
            }
        return costs

    def _json(self, command: list[str]) -> object:
        """What a command prints with this commit's code; None, and a line of trouble, if it fails."""
        done = subprocess.run(
            [sys.executable, *command],
            cwd=self.tree,
            env=os.environ | {"PYTHONPATH": str(self.tree)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return json.loads(done.stdout)
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        self.trouble.add(f"{self.name}: {command[0]} {command[1]}: {said[-1]}")
        return None


def verdict(ratios: Sequence[float]) -> str:
    """A word for the second commit: all rounds have to agree before it is called faster or slower."""
    if abs(statistics.median(ratios) - 1) < NOTHING:
        return "equal"
    if min(ratios) > 1:
        return "slower"
    return "faster" if max(ratios) < 1 else "unclear"


def lines(rounds: Sequence[tuple[Costs, Costs]]) -> Iterator[str]:
    """A line for each case that either commit has."""
    for name in dict.fromkeys(name for pair in rounds for side in pair for name in side):
        ratios = [b[name] / a[name] for a, b in rounds if name in a and name in b]
        if ratios:
            spread = f"{statistics.median(ratios):6.3f} ({min(ratios):.3f}-{max(ratios):.3f})"
            yield f"{name:<40} {spread} {verdict(ratios)}"
        else:
            yield f"{name:<40} only in the {'first' if any(name in a for a, _ in rounds) else 'second'}"


def compare(sides: tuple[Side, Side], names: Sequence[str], model: bool, count: int) -> None:
    """Measure in turn and print."""
    able = []
    for side in sides:
        print(f"bench-commits: {side.name}: compiling what it needs", file=sys.stderr, flush=True)
        able.append(side.measure(names, model).keys())
    for trouble in sorted(sides[0].trouble | sides[1].trouble):
        print(f"bench-commits: {trouble}", file=sys.stderr, flush=True)
    if not able[0] & able[1]:
        sys.exit("bench-commits: there is nothing that could be measured in both")
    rounds = []
    for i in range(count):
        print(f"bench-commits: round {i + 1} of {count}", file=sys.stderr, flush=True)
        rounds.append((sides[0].measure(names, model), sides[1].measure(names, model)))
    print(f"{sides[1].name} relative to {sides[0].name}: cost, median of {count} rounds (least-largest)")
    for line in lines(rounds):
        print(line)


def _stop(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench-commits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument("names", nargs="*", help="beginnings of cases' names, or model; everything if none")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_intermixed_args()
    names = [name for name in options.names if name != MODEL]
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}: one at least")
    signal.signal(signal.SIGTERM, _stop)
    commits = [
        _git(ROOT, "rev-parse", "--verify", f"{c}^{{commit}}") for c in (options.first, options.second)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="bench-commits-", ignore_cleanup_errors=True) as folder,
        worktree(ROOT, commits[0], Path(folder) / "a") as a,
        worktree(ROOT, commits[1], Path(folder) / "b") as b,
    ):
        for tree in (a, b):
            lend(ROOT, tree)
        sides = Side(options.first, a), Side(options.second, b)
        compare(sides, names, not options.names or MODEL in options.names, options.rounds)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
