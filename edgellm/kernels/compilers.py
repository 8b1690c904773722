"""Child processes that compile kernels, so that this one never holds a compiler in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from edgellm.memory import available_memory
from edgellm.simd import targets

Progress = Callable[[str, int, int], None]
_ROOT = Path(__file__).resolve().parents[2]  # where a child finds this package
_MOST_CHILDREN = 4
_CHILD_BYTES = 240 << 20  # of a child at its largest
# Kernels that have much in common, by how their names begin; the family that takes longest first, 1 to 6 s
# each, where all others together take one.
_FAMILIES = (("sample.",), ("matmul.",), ("attention.",), ("pointwise.", "quantize."), ("team.",))


def compile_all(
    names: Sequence[str], target: targets.Target, folder: Path, progress: Progress | None
) -> None:
    """Have each kernel's object put into `folder`, by one child a core; a kernel that fails has none."""
    children = [_start(target, folder) for _ in range(_worker_count(len(names)))]
    try:
        _hand_out(Queue(names), children, progress)
    finally:
        for child in children:
            _end(child)


class Queue:
    """Kernels that wait for a compiler.

    Those that take longest go first, so that nobody waits for them last. But who has compiled one goes on
    with its family, and leaves another's to whoever began it, while there is anything else: what two of one
    have in common, which is a fifth of a product and half or more of most others, is compiled only once.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._waiting = sorted(names, key=_family)
        self._begun: set[int] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, last: str | None) -> str | None:
        """The next kernel for who did `last`, which is None for who did none; None if there are no more."""
        with self._lock:
            if not self._waiting:
                return None
            own = None if last is None else _family(last)
            name = min(self._waiting, key=lambda n: (_family(n) != own, _family(n) in self._begun))
            self._waiting.remove(name)
            self._begun.add(_family(name))
            return name


def _family(name: str) -> int:
    return next((i for i, family in enumerate(_FAMILIES) if name.startswith(family)), len(_FAMILIES))


def compiler_environment(target: targets.Target) -> dict[str, str]:
    """Variables that make a child process compile for `target`."""
    cpu, features = targets.llvm_cpu(target)
    path = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {
        "EDGELLM_TARGET": target.name,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "PYTHONPATH": path,
    }


def _start(target: targets.Target, folder: Path) -> subprocess.Popen[str]:
    # -P: nothing is imported from the user's folder, whatever the names of the files there.
    command = [sys.executable, "-P", "-m", "edgellm.kernels.compile", str(folder), "-"]
    environment = os.environ | compiler_environment(target)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def _worker_count(kernels: int) -> int:
    """One for each core and kernel, as many as fit into memory; never none."""
    available = available_memory()
    fitting = _MOST_CHILDREN if available is None else available // _CHILD_BYTES
    return max(1, min(os.cpu_count() or 1, kernels, _MOST_CHILDREN, fitting))


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _hand_out(queue: Queue, children: list[subprocess.Popen[str]], progress: Progress | None) -> None:
    """Give each child a kernel, and another whenever it prints a line."""
    count, done = len(queue), 0
    lock = threading.Lock()

    def serve(child: subprocess.Popen[str]) -> None:
        nonlocal done
        assert child.stdin is not None
        assert child.stdout is not None
        name = None
        with contextlib.suppress(BrokenPipeError), child.stdin as orders:
            while name := queue.take(name):
                orders.write(name + "\n")
                orders.flush()
                if not child.stdout.readline():
                    return
                with lock:
                    done += 1
                    if progress:
                        progress("compiling kernels", done, count)

    if progress:
        progress("compiling kernels", 0, count)
    servers = [threading.Thread(target=serve, args=(child,), daemon=True) for child in children]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
