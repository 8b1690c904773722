"""The team walks plans: every chunk once, ops in order, whoever sleeps, comes late or gives up."""

from __future__ import annotations

import ctypes
import os
import threading
import time

import numpy as np
import pytest

from edgellm.backends.cpu.team import Plan, Team, aligned, team_of
from edgellm.errors import EdgeLLMError
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels


class Adder:
    """A plan of `pointwise.gather` ops that each copy rows of the last op's output: any disorder shows in
    the result.
    """

    def __init__(self, ops: int, rows: int) -> None:
        kernel = load_kernels(["pointwise.gather"])["pointwise.gather"]
        self.rows = rows
        self.buffers = np.zeros((ops + 1, rows, 16), np.float32)
        self.index = np.roll(np.arange(rows, dtype=np.int32), 1)
        self.header = aligned(L.HEADER_WORDS)
        self.header[[L.H_ONE, L.H_PARTS]] = 1
        self.header[L.H_OUTPUTS] = rows
        self.header[L.H_OUTPUT_ROWS] = self.index.ctypes.data
        self.args = np.zeros((ops, L.PW_WORDS), np.int64)
        table = np.zeros((ops, L.OP_WORDS), np.int64)
        for i in range(ops):
            self.args[i, [L.PW_X, L.PW_Y]] = self.buffers[i].ctypes.data, self.buffers[i + 1].ctypes.data
            self.args[i, [L.PW_COLUMNS, L.PW_X_STRIDE, L.PW_Y_STRIDE]] = 16, 64, 64
            self.args[i, [L.PW_SLOT, L.PW_ROWS]] = L.H_OUTPUTS, L.H_OUTPUT_ROWS
            table[i, : L.OP_MUL + 1] = kernel, self.args[i].ctypes.data, L.H_OUTPUTS, L.PW_CHUNK, 1
        self.table = table
        self.plan = Plan(table, self.header)

    def check(self, seed: int) -> None:
        rows = int(self.header[L.H_OUTPUTS])
        want = self.buffers[0, :rows].copy()
        for _ in range(len(self.args)):
            want = np.roll(want, 1, axis=0)
        assert (self.buffers[-1, :rows] == want).all(), seed


@pytest.mark.parametrize("threads", [1, 2, 4, L.MOST_SHARES + 3])
def test_every_chunk_runs_once_and_ops_run_in_order(threads):
    team, adder = team_of(threads), Adder(ops=12, rows=200)
    rng = np.random.default_rng(threads)
    for epoch in range(300):
        adder.buffers[0] = rng.standard_normal((200, 16))
        adder.buffers[1:] = 0
        team.run(adder.plan)
        adder.check(epoch)
        if epoch % 50 == 0:
            time.sleep(0.02)  # long enough for the workers to fall asleep


def test_an_op_without_chunks_is_stepped_over():
    team, adder = team_of(2), Adder(ops=3, rows=64)
    adder.header[L.H_OUTPUTS] = 0
    for _ in range(20):
        team.run(adder.plan)
    adder.header[L.H_OUTPUTS] = 64
    adder.buffers[0] = 1.5
    team.run(adder.plan)
    adder.check(0)


def test_plans_may_alternate():
    team, plans = team_of(3), [Adder(ops=n, rows=50) for n in (1, 7, 3)]
    for epoch in range(200):
        adder = plans[epoch % 3]
        adder.buffers[0] = epoch
        team.run(adder.plan)
        adder.check(epoch)


def test_a_cancelled_plan_ends_soon_and_the_next_one_is_whole():
    team, slow = team_of(2), Adder(ops=3000, rows=4000)
    slow.buffers[0] = 3
    whole = time.perf_counter()
    team.run(slow.plan)
    whole = time.perf_counter() - whole
    for delay in (0.0, whole / 10, whole / 4):
        timer = threading.Timer(delay, team.cancel, [slow.plan])
        began = time.perf_counter()
        timer.start()
        team.run(slow.plan)
        timer.join()
        assert time.perf_counter() - began < whole / 2 + delay + 0.2
    adder = Adder(ops=5, rows=100)
    for epoch in range(50):
        adder.buffers[0] = epoch
        team.run(adder.plan)
        adder.check(epoch)


def test_a_plan_goes_on_when_another_is_cancelled():
    team, running, other = team_of(2), Adder(ops=300, rows=4000), Adder(ops=3, rows=8)
    team.run(other.plan)
    ended = threading.Event()

    def cancel_others():
        while not ended.is_set():
            team.cancel(other.plan)

    canceller = threading.Thread(target=cancel_others)
    canceller.start()
    try:
        for epoch in range(5):
            running.buffers[0] = epoch
            team.run(running.plan)
            running.check(epoch)
    finally:
        ended.set()
        canceller.join()


def test_nobody_spins_after_a_plan_was_given_up():
    team, slow = team_of(3), Adder(ops=3000, rows=4000)
    timer = threading.Timer(0.01, team.cancel, [slow.plan])
    timer.start()
    team.run(slow.plan)
    timer.join()
    time.sleep(0.2)  # to fall asleep in
    began = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - began < 0.1


def words_of_workers(team, word):
    """A view of one word of each worker but the first."""
    return team._control[L.C_WORKER + L.WORKER_WORDS + word :: L.WORKER_WORDS]


def test_more_workers_than_cores_bench_each_other_and_nothing_is_lost():
    team, adder = team_of((os.cpu_count() or 1) + 2), Adder(ops=50, rows=2000)
    deadline, epoch = time.monotonic() + 20, 0
    while epoch < 50 or (not words_of_workers(team, L.W_PENALTY).any() and time.monotonic() < deadline):
        adder.buffers[0] = epoch
        adder.buffers[1:] = -1
        team.run(adder.plan)
        adder.check(epoch)
        epoch += 1
    assert words_of_workers(team, L.W_PENALTY).any(), "nobody was benched in 20 s"


def test_a_benched_worker_leaves_its_core_to_others():
    team, adder = team_of(2), Adder(ops=300, rows=2000)
    team.run(adder.plan)
    time.sleep(0.5)  # so that it is not just sitting out a time of its own
    words_of_workers(team, L.W_UNTIL)[:] = time.monotonic_ns() + 400_000_000
    words_of_workers(team, L.W_BENCHED)[:] = 1
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() - began < 0.3:
        team.run(adder.plan)
    assert time.process_time() - used < 1.4 * (time.monotonic() - began)
    deadline = time.monotonic() + 10  # on a busy machine it may well be benched again
    while words_of_workers(team, L.W_BENCHED).any() and time.monotonic() < deadline:
        team.run(adder.plan)
        time.sleep(0.02)
    assert not words_of_workers(team, L.W_BENCHED).any()
    adder.buffers[0] = 5
    team.run(adder.plan)
    adder.check(0)


def plan_of(chunk, count, ops=1):
    """A plan of ops with so many chunks, each a call of `chunk`; keep that alive."""
    header, table = aligned(L.HEADER_WORDS), np.zeros((ops, L.OP_WORDS), np.int64)
    header[[L.H_ONE, L.H_PARTS]] = 1
    table[:, : L.OP_MUL + 1] = ctypes.cast(chunk, ctypes.c_void_p).value, 0, L.H_ONE, 1, count
    table[:, L.OP_PARTS] = L.H_ONE
    return Plan(table, header)


@pytest.mark.parametrize(("since_the_last", "penalty"), [(-10.0, 400), (1.0, 4)], ids=["soon", "late"])
def test_only_a_stall_soon_after_the_last_is_benched_for_longer(since_the_last, penalty):
    """A host that takes a core away twice a second must not cost half of it."""
    taken = threading.Event()

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        if worker == 1:
            taken.set()
            time.sleep(0.3)  # worker 0 has long lost its patience
        else:
            taken.wait(10)

    team = team_of(2)
    words_of_workers(team, L.W_BENCHED)[:] = 0
    words_of_workers(team, L.W_PENALTY)[:] = 200_000_000
    words_of_workers(team, L.W_UNTIL)[:] = time.monotonic_ns() - int(since_the_last * 1e9)
    team.run(plan_of(chunk, 2))
    assert taken.is_set()
    assert words_of_workers(team, L.W_PENALTY)[0] == penalty * 1_000_000


def test_a_token_that_takes_long_to_draw_benches_nobody():
    """The last op has a chunk for each row, so that with one row all but one have to wait."""

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        time.sleep(0.002)

    team, plan = team_of(2), plan_of(chunk, 1)

    def somebody_is() -> bool:
        words_of_workers(team, L.W_PENALTY)[:] = 0
        for _ in range(20):
            team.run(plan)
        return bool(words_of_workers(team, L.W_PENALTY).any())

    assert not all(somebody_is() for _ in range(3))  # on a busy machine one may really be in the way, once


def test_who_is_away_for_a_moment_in_every_step_is_not_benched():
    """A server's own thread takes a core to send what each step gave: as if a neighbour were always there."""

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        time.sleep(0.0013)

    team, plan = team_of(2), plan_of(chunk, 1, ops=2)

    def how_often() -> int:
        benched = 0
        for _ in range(20):
            for word in (L.W_BENCHED, L.W_UNTIL, L.W_PENALTY):
                words_of_workers(team, word)[:] = 0
            team.run(plan)
            benched += int(words_of_workers(team, L.W_PENALTY).any())
        return benched

    assert min(how_often() for _ in range(3)) < 8  # others may really be in the way


def test_who_waits_does_parts_of_a_chunk_that_asks():
    """A row's token is one chunk, but its worker need not look at 150,000 logits alone."""
    parts, asker = [], []

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def part(args, header, number, worker):
        parts.append((args, number, worker))

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        words = (ctypes.c_int64 * L.HEADER_WORDS).from_address(header)
        words[L.H_PART_KERNEL], words[L.H_PART_ARGS] = ctypes.cast(part, ctypes.c_void_p).value, 77
        time.sleep(0.001)  # so that others see these before the next
        words[L.H_PARTS_LEFT] += (1 << 24) + 3
        deadline = time.monotonic() + 10
        while words[L.H_PARTS_DONE] < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        asker.append(worker)

    team = team_of(2)
    words_of_workers(team, L.W_BENCHED)[:] = 0
    team.run(plan_of(chunk, 1))
    assert sorted(parts) == [(77, number, 1 - asker[0]) for number in range(3)]


def test_what_a_parked_worker_offers_is_done_by_another():
    """The plan does not wait; who comes back too late has lost its chunk, and no other."""
    taken, done, late = threading.Event(), [], threading.Event()
    team = team_of(2)
    held = words_of_workers(team, L.W_HOLDS)

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        if worker == 0:
            taken.wait(10)
            done.append(number)
        elif not taken.is_set():
            held[0] = 5 << 32 | number << L.STATE_BITS | L.OFFERED
            taken.set()
            late.wait(10)

    words_of_workers(team, L.W_BENCHED)[:] = 0
    team.run(plan_of(chunk, 2))
    assert sorted(done) == [0, 1]
    assert held[0] == L.LOST
    settled = threading.Thread(target=team.settle)
    settled.start()
    time.sleep(0.05)
    assert settled.is_alive()
    late.set()
    settled.join(10)
    assert not settled.is_alive()
    assert held[0] == 0
    adder = Adder(ops=5, rows=100)
    for epoch in range(50):
        adder.buffers[0] = epoch
        team.run(adder.plan)
        adder.check(epoch)


def test_what_is_not_offered_is_waited_for():
    done, taken = [], threading.Event()

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, number, worker):
        if worker == 0:
            taken.wait(10)
        else:
            taken.set()
            time.sleep(0.1)
        done.append(number)

    team = team_of(2)
    words_of_workers(team, L.W_BENCHED)[:] = 0
    team.run(plan_of(chunk, 2))
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("count", [2, 7, 8])
def test_workers_begin_with_their_own_shares(count):
    """What a worker wrote is still in its cache when it comes to the same tokens or columns again."""
    first, both = {}, threading.Barrier(2, timeout=10)

    @ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
    def chunk(args, header, chunk, worker):
        if worker not in first:
            first[worker] = chunk
            both.wait()

    team = team_of(2)
    words_of_workers(team, L.W_BENCHED)[:] = 0
    team.run(plan_of(chunk, count))
    assert first == {0: 0, 1: count // 2}


def test_a_plan_may_be_dropped_as_soon_as_it_was_run():
    team = team_of(4)
    for epoch in range(300):
        adder = Adder(ops=2, rows=30)
        adder.buffers[0] = epoch
        team.run(adder.plan)
        adder.check(epoch)
        del adder
    assert len(team._past) < 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_makes_a_team_of_its_own():
    team_of(2).run(Adder(ops=2, rows=30).plan)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            adder = Adder(ops=3, rows=40)
            adder.buffers[0] = 2
            team_of(2).run(adder.plan)
            adder.check(0)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert status == 0


def test_a_team_that_cannot_be_whole_leaves_no_worker(monkeypatch):
    starts, start = [], threading.Thread.start

    def fails_at_last(thread):
        starts.append(thread)
        if len(starts) == 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails_at_last)
    with pytest.raises(EdgeLLMError, match="only 3 of 5 threads"):
        Team(5)
    assert not any(thread.is_alive() for thread in starts)
