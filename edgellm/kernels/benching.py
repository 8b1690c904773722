"""Workers that are in the way: benched, and asleep meanwhile.

A worker that the OS parks usually holds a chunk, and then all others wait. Who has waited for long benches
it: it takes no chunks for a while, and longer if that happens again as soon as it is back. A benched worker
sleeps, because one that spins keeps a core from those who have something to do.
"""

from __future__ import annotations

import sys

from edgellm.kernels.jit import device
from edgellm.kernels.layout import (
    C_WORKER,
    C_WORKERS,
    LOST,
    STATE,
    W_BENCHED,
    W_CLOCK,
    W_HOLDS,
    W_PENALTY,
    W_UNTIL,
    WORKER_WORDS,
)
from edgellm.simd.atomics import atomic_load, atomic_store, monotonic_ns, sleep_ns
from edgellm.simd.ops import get_i64

_CLOCK = 6 if sys.platform == "darwin" else 1  # CLOCK_MONOTONIC
_BENCH_NS = 4_000_000  # takes no chunks for this long, the first time,
_BENCH_MOST_NS = 400_000_000  # and no longer than this;
_SOON_NS = 40_000_000  # a stall later than this after that begins anew: another program comes back at once,
# while a host takes a core away for a moment twice a second, without end


@device
def worker_words(control, number):
    """Where a worker's words (W_*) are."""
    return control + 8 * (C_WORKER + WORKER_WORDS * number)


@device
def clock(control, number):
    """Nanoseconds, for this worker: it has its own room for the system's answer."""
    return monotonic_ns(_CLOCK, worker_words(control, number) + 8 * W_CLOCK)


@device
def _bench(control, number, now):
    """No chunks for this worker for a while; twice as long as the last time, if that has just ended."""
    worker = worker_words(control, number)
    penalty = atomic_load(worker + 8 * W_PENALTY)
    if now - atomic_load(worker + 8 * W_UNTIL) > _SOON_NS:
        penalty = _BENCH_NS
    else:
        penalty = min(2 * penalty, _BENCH_MOST_NS)
    atomic_store(worker + 8 * W_PENALTY, penalty)
    atomic_store(worker + 8 * W_UNTIL, now + penalty)
    atomic_store(worker + 8 * W_BENCHED, 1)


@device
def _holds(control, number):
    """Whether others wait for a chunk of this worker's: not for one that was taken over."""
    state = atomic_load(worker_words(control, number) + 8 * W_HOLDS) & STATE
    return state != 0 and state != LOST


@device
def bench_holders(control, now):
    """Whoever holds a chunk now holds up worker 0."""
    for w in range(1, get_i64(control + 8 * C_WORKERS)):
        if _holds(control, w) and atomic_load(worker_words(control, w) + 8 * W_BENCHED) == 0:
            _bench(control, w, now)


@device
def make_room(control, number, now):
    """Worker 0, which nobody can replace, is held up: let the last of the others give it a core."""
    last = number + 1 == get_i64(control + 8 * C_WORKERS)
    turn = last or atomic_load(worker_words(control, number + 1) + 8 * W_BENCHED) != 0
    if turn and _holds(control, 0):
        _bench(control, number, now)
        sit_out(control, number)


@device
def sit_out(control, number):
    """Sleep while benched."""
    worker = worker_words(control, number)
    if atomic_load(worker + 8 * W_BENCHED) != 0:
        left = atomic_load(worker + 8 * W_UNTIL) - clock(control, number)
        if left > 0:
            sleep_ns(left, worker + 8 * W_CLOCK)
        atomic_store(worker + 8 * W_BENCHED, 0)
