"""Child processes that compile kernels, so that this one never holds a compiler in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from edgellm.errors import EdgeLLMError
from edgellm.memory import available_memory
from edgellm.simd import targets

Progress = Callable[[str, int, int], None]
_ROOT = Path(__file__).resolve().parents[2]  # where a child finds this package
_MOST_CHILDREN = 4
_CHILD_BYTES = 240 << 20  # of a child at its largest
# Kernels that have much in common, by how their names begin; the family that takes longest first.
_FAMILIES = (("sample.",), ("matmul.",), ("attention.",), ("pointwise.", "quantize."), ("team.",))


class Compilers:
    """Children that compile what they are given, one a core, for as long as there is something to do.

    Each kernel's object is put into `folder`; one that fails has none, and `trouble` says why. Children that
    are still at it when the process ends, end with it.
    """

    def __init__(self, target: targets.Target, folder: Path) -> None:
        self._target, self.folder = target, folder
        self._queue = Queue()
        self._asked: set[str] = set()
        self._failed: dict[str, int] = {}  # what its child ended with
        self._done = 0
        self._progress: Progress | None = None
        self._lock = threading.Lock()
        self._children: list[subprocess.Popen[str]] = []
        self._servers: list[threading.Thread] = []
        self._working = 0
        weakref.finalize(self, _end_all, self._children)

    def add(self, names: Sequence[str], progress: Progress | None = None) -> None:
        """Have these compiled, too, those that were asked for before only once. `progress` is told of all.

        Raises EdgeLLMError if not one child can be started.
        """
        with self._lock:
            new = [name for name in dict.fromkeys(names) if name not in self._asked]
            self._asked.update(new)
            self._queue.add(new)
            self._progress = progress
            self._tell()
            wanted = _worker_count(len(self._queue) + self._working) if new else 0
            for _ in range(wanted - self._working):
                try:
                    self._begin(_start(self._target, self.folder))
                except OSError as error:
                    if not self._working:
                        raise EdgeLLMError(
                            f"no process could be started to compile kernels in ({error.strerror})"
                        ) from error
                    break

    @property
    def idle(self) -> bool:
        """Whether all that was asked for is done."""
        return self._working == 0

    def wait(self) -> None:
        """Until all are done. Whatever ends the wait early ends the children."""
        try:
            for server in self._servers:
                server.join()
        finally:
            _end_all(self._children)

    def trouble(self, name: str) -> str:
        """Why a kernel has no object."""
        ended = self._failed.get(name)
        if ended is not None and ended < 0:
            return f"its compiler was ended by signal {-ended}; if that is 9, memory may have run out"
        return "the compiler's words are above"

    def _begin(self, child: subprocess.Popen[str]) -> None:
        self._working += 1
        self._children.append(child)
        self._servers.append(threading.Thread(target=self._serve, args=(child,), daemon=True))
        self._servers[-1].start()

    def _serve(self, child: subprocess.Popen[str]) -> None:
        """Give a child a kernel, and another whenever it says that it has done one."""
        assert child.stdin is not None
        assert child.stdout is not None
        name = None
        with contextlib.suppress(BrokenPipeError), child.stdout as answers, child.stdin as orders:
            while name := self._next(name):
                orders.write(name + "\n")
                orders.flush()
                if f"{name}\n" not in answers:  # reads on until it comes, or the child ends
                    break
        if name is None:
            child.kill()
        ended = child.wait()
        if name is not None:
            with self._lock:
                self._failed[name] = ended
                self._working -= 1

    def _next(self, last: str | None) -> str | None:
        """What follows `last`. Who is told that there is nothing, works no more."""
        with self._lock:
            if last is not None:
                self._done += 1
                self._tell()
            name = self._queue.take(last)
            if name is None:
                self._working -= 1
            return name

    def _tell(self) -> None:
        if self._progress is not None:
            self._progress("compiling kernels", self._done, len(self._asked))


class Queue:
    """Kernels that wait for a compiler.

    Those that take longest go first, so that nobody waits for them last. But who has compiled one goes on
    with its family, and leaves another's to whoever began it, while there is anything else: what two of one
    have in common, which is a fifth of a product and half or more of most others, is compiled only once.
    """

    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._begun: set[int] = set()

    def add(self, names: Sequence[str]) -> None:
        self._waiting = sorted([*self._waiting, *names], key=_family)

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, last: str | None) -> str | None:
        """The next kernel for who did `last`, which is None for who did none; None if there are no more."""
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
    """All variables of a child process that compiles for `target`: none of Numba's but ours."""
    cpu, features = targets.llvm_cpu(target)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = os.pathsep.join([str(_ROOT), *(os.path.abspath(folder) for folder in given if folder)])
    others = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    return others | {
        "EDGELLM_TARGET": target.name,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "PYTHONPATH": path,
    }


def _start(target: targets.Target, folder: Path) -> subprocess.Popen[str]:
    # -P: nothing is imported from the user's folder, whatever the names of the files there.
    command = [sys.executable, "-P", "-m", "edgellm.kernels.compile", str(folder.absolute()), "-"]
    environment = compiler_environment(target)
    pipe = subprocess.PIPE
    # A folder of its own: Numba looks for settings where it is. A group of its own: Control-C is for this
    # process, which ends its children.
    return subprocess.Popen(
        command, env=environment, cwd=folder, stdin=pipe, stdout=pipe, text=True, process_group=0
    )


def _worker_count(kernels: int) -> int:
    """One for each core and kernel, as many as fit into memory; never none."""
    available = available_memory()
    fitting = _MOST_CHILDREN if available is None else available // _CHILD_BYTES
    return max(1, min(os.cpu_count() or 1, kernels, _MOST_CHILDREN, fitting))


def _end_all(children: list[subprocess.Popen[str]]) -> None:
    """Their threads find it out, and close the pipes."""
    for child in children:
        child.kill()
        child.wait()
    children.clear()
