"""What `scripts/bench-commits` runs: two worktrees, the same measurements in each by turns, ratios."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTHING = 0.03  # a median ratio this near to 1 is called equal


@contextlib.contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of `commit`, removed afterwards, whatever happens."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=False)


def _json(tree: Path, command: list[str]) -> object:
    """What a command prints as JSON with the code of `tree`; None if it fails there."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout) if done.returncode == 0 else None


def measure(tree: Path) -> dict[str, float]:
    """Costs: of kernels relative to a loop beside them, of the default model in seconds a token."""
    costs: dict[str, float] = {}
    own = tree / "bench" / "kernels.py"  # else this checkout's, which may not fit the older code
    kernels = _json(tree, [str(own if own.exists() else ROOT / "bench" / "kernels.py"), "--json"])
    if isinstance(kernels, dict):
        costs |= kernels
    sizes = ["--prompt-tokens", "256", "--gen-tokens", "48", "--repeat", "3", "--json"]
    model = _json(tree, ["-m", "edgellm", "bench", *sizes])
    if isinstance(model, list):
        costs |= {f"model, {row['test']}": 1 / row["tokens_per_second"] for row in model}
    return costs


def report(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    """A line for each thing that both have: the median ratio, its spread, and what to call it."""
    for name in rounds[0][0]:
        ratios = [b[name] / a[name] for a, b in rounds if name in a and name in b]
        if not ratios:
            print(f"{name:<22} only in one of them")
            continue
        middle = statistics.median(ratios)
        word = "equal" if abs(middle - 1) < NOTHING else "faster" if middle < 1 else "slower"
        sure = min(ratios) > 1 or max(ratios) < 1 or word == "equal"
        print(
            f"{name:<22} {middle:6.3f} ({min(ratios):.3f}-{max(ratios):.3f}) "
            f"{word}{'' if sure else ', perhaps'}"
        )


def main() -> None:
    """Read the command line and run."""
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: scripts/bench-commits A B [ROUNDS]")
    first, second = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) == 4 else 3
    with (
        tempfile.TemporaryDirectory() as folder,
        worktree(first, Path(folder) / "a") as a,
        worktree(second, Path(folder) / "b") as b,
    ):
        for tree in (a, b):
            measure(tree)  # compiles kernels
        report([(measure(a), measure(b)) for _ in range(count)])


if __name__ == "__main__":
    main()
