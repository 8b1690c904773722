"""The team's Python side: threads that live in one compiled loop, and the call that runs a plan.

There is one team for each thread count in a process, whatever the number of models. `kernels/team.py` has
the protocol.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import EdgeLLMError
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels

KERNELS = ("team.run", "team.work")
_Function = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)  # calling one releases the GIL
_NAP = 0.0005  # seconds
_teams: dict[int, Team] = {}
_teams_lock = threading.Lock()


def aligned(words: int) -> NDArray[np.int64]:
    """Zeroed int64 words that begin on a cache line."""
    raw = np.zeros(words + 8, np.int64)
    skip = -(raw.ctypes.data // 8) % 8
    return raw[skip : skip + words]


def team_of(threads: int) -> Team:
    """The team of so many threads."""
    with _teams_lock:
        if threads not in _teams:
            _teams[threads] = Team(threads)
        return _teams[threads]


class Plan:
    """Ops [n, OP_WORDS], the header they read, and a ticket for each."""

    def __init__(self, ops: NDArray[np.int64], header: NDArray[np.int64]) -> None:
        self._ops, self._header = ops, header
        self._tickets = aligned(len(ops) * L.TICKET_WORDS)
        parts = (ops.ctypes.data, len(ops), header.ctypes.data, self._tickets.ctypes.data, 0)
        self.words = np.array(parts, np.int64)
        self.header = int(header.ctypes.data)
        self.address = int(self.words.ctypes.data)
        self.times: NDArray[np.int64] | None = None

    def trace(self) -> None:
        """From now on, `times` [n + 1] has when the last run began and when each op was over, in ns."""
        self.times = np.zeros(len(self._ops) + 1, np.int64)
        self.words[-1] = self.times.ctypes.data


class Team:
    """`threads` workers, the caller of `run` being one of them."""

    def __init__(self, threads: int) -> None:
        addresses = load_kernels(KERNELS)
        self._run, self._work = (_Function(addresses[name]) for name in KERNELS)
        self.threads = threads
        self._process = os.getpid()
        self._control = aligned(L.C_WORKER + L.WORKER_WORDS * threads)
        self._control[L.C_WORKERS] = threads
        self._address = int(self._control.ctypes.data)
        self._init_sleep()
        self._lock = threading.RLock()  # `settle` may be called by a garbage collection within `run`
        self._present: Plan | None = None  # what ran last
        self._past: list[tuple[int, Plan | None]] = []  # what ran before it, and until which epoch
        self._start(threads)

    def _init_sleep(self) -> None:
        libc, mutex, condition = self._sleep()
        libc.pthread_mutex_init(mutex, None)
        libc.pthread_cond_init(condition, None)

    def _sleep(self) -> tuple[ctypes.CDLL, ctypes.c_void_p, ctypes.c_void_p]:
        """libc, and the mutex and condition on which workers sleep."""
        mutex, condition = (ctypes.c_void_p(self._address + 8 * word) for word in (L.C_MUTEX, L.C_CONDITION))
        return ctypes.CDLL(None), mutex, condition

    def _start(self, threads: int) -> None:
        """Start all workers, or none: EdgeLLMError if there may not be so many."""
        started: list[threading.Thread] = []
        try:
            for number in range(1, threads):
                arguments, name = (self._address, number, 0, 0), f"edgellm-{number}"
                worker = threading.Thread(target=self._work, args=arguments, daemon=True, name=name)
                worker.start()
                started.append(worker)
        except RuntimeError as error:
            libc, mutex, condition = self._sleep()
            libc.pthread_mutex_lock(mutex)
            self._control[L.C_STOP] = 1
            libc.pthread_cond_broadcast(condition)
            libc.pthread_mutex_unlock(mutex)
            for worker in started:
                worker.join()
            raise EdgeLLMError(
                f"only {len(started) + 1} of {threads} threads could be started ({error}); ask for fewer"
            ) from error

    def run(self, plan: Plan) -> None:
        """Walk the whole plan, or until `cancel`."""
        with self._lock:
            self._control[L.C_ABORT] = 0
            self._keep(plan)
            self._run(self._address, plan.address, 0, 0)

    def _keep(self, plan: Plan) -> None:
        """Hold on to plans that a worker which comes late may still look at: those of epochs it has not
        left.
        """
        if plan is self._present:
            return
        left = self._control[L.C_WORKER + L.WORKER_WORDS + L.W_LEFT :: L.WORKER_WORDS]
        oldest = int(left.min()) if len(left) else 1 << 62
        past = [*self._past, (int(self._control[L.C_EPOCH]), self._present)]
        self._past = [(epoch, p) for epoch, p in past if epoch > oldest]
        self._present = plan

    def settle(self) -> None:
        """Wait until nobody reads what plans point to: who lost a chunk to another may still be at it."""
        if os.getpid() != self._process:
            return  # a fork has none of the workers
        held = self._control[L.C_WORKER + L.WORKER_WORDS + L.W_HOLDS :: L.WORKER_WORDS]
        with self._lock:
            while held.any():
                time.sleep(_NAP)

    def cancel(self, plan: Plan) -> None:
        """If this plan is running, let it end after the chunks at hand. Any thread may call it."""
        self._control[L.C_ABORT] = plan.header


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_teams.clear)
