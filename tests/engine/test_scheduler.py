import pytest

from edgellm.engine.ring import Ring
from edgellm.engine.scheduler import Limits, Scheduler
from edgellm.engine.sequence import Sequence, State

PAGE = 4


def make(num_pages=16, max_sequences=4, max_tokens=32, max_outputs=8, reuse=True):
    return Scheduler(Ring(num_pages, PAGE), Limits(max_sequences, max_tokens, max_outputs), reuse)


def add(scheduler, tokens, arrival=None, **kwargs):
    arrival = len(scheduler.waiting) + len(scheduler.running) if arrival is None else arrival
    sequence = Sequence((arrival, 0), list(tokens), **kwargs)
    scheduler.add(sequence)
    return sequence


def run(scheduler, budget=32, new=99):
    """A step; every sequence that has logits goes on with the token `new`."""
    step = scheduler.schedule(budget)
    scheduler.advance(step)
    for share in step.shares:
        if share.outputs:
            share.sequence.tokens.append(new)
    return [(s.sequence, s.count, s.outputs) for s in step.shares]


def test_a_prompt_that_fits_runs_at_once_and_gives_one_row():
    scheduler = make()
    a = add(scheduler, range(10))
    assert run(scheduler) == [(a, 10, 1)]
    assert run(scheduler) == [(a, 1, 1)]
    assert a.computed == 11
    assert len(a.pages) == 3


def test_a_long_prompt_comes_in_chunks_and_only_the_last_gives_a_row():
    scheduler = make()
    a = add(scheduler, range(20))
    assert [run(scheduler, budget=8) for _ in range(4)] == [
        [(a, 8, 0)],
        [(a, 8, 0)],
        [(a, 4, 1)],
        [(a, 1, 1)],
    ]


def test_decodes_come_first_and_share_the_step_with_prefill():
    scheduler = make()
    a = add(scheduler, range(4))
    run(scheduler)
    b = add(scheduler, range(50, 70))
    assert run(scheduler, budget=8) == [(a, 1, 1), (b, 8, 0)]


def test_the_budget_goes_to_the_eldest_and_what_is_left_to_the_next():
    scheduler = make()
    a, b = add(scheduler, range(6)), add(scheduler, range(20, 30))
    assert run(scheduler, budget=8) == [(a, 6, 1), (b, 2, 0)]


def test_a_step_never_exceeds_its_tokens_and_outputs():
    scheduler = make(max_sequences=3, max_tokens=6, max_outputs=3, num_pages=64)
    for i in range(5):
        add(scheduler, range(i * 30, i * 30 + 20), arrival=i, all_rows=i == 1)
    for _ in range(40):
        step = scheduler.schedule(32)
        assert sum(s.count for s in step.shares) <= 6
        assert sum(s.outputs for s in step.shares) <= 3
        scheduler.advance(step)
        for share in step.shares:
            if share.sequence.all_rows and share.sequence.remaining == 0:
                scheduler.remove(share.sequence)
            elif share.outputs:
                share.sequence.tokens.append(1)
                if len(share.sequence.tokens) > 24:
                    scheduler.remove(share.sequence)
    assert not scheduler.running
    assert not scheduler.waiting


def test_all_rows_wants_a_row_of_every_token():
    scheduler = make(max_outputs=4)
    a = add(scheduler, range(10), all_rows=True)
    taken = []
    while a.remaining:
        step = scheduler.schedule(32)
        taken += [(s.count, s.outputs) for s in step.shares]
        scheduler.advance(step)
    assert taken == [(4, 4), (4, 4), (2, 2)]


def test_all_rows_neither_uses_nor_fills_the_cache():
    scheduler = make()
    scheduler.remove(_done(scheduler, range(8)))
    a = add(scheduler, range(8), all_rows=True)
    run(scheduler)
    assert a.cached == 0
    used = scheduler.ring.cached
    scheduler.remove(a)
    assert scheduler.ring.cached == used


def _done(scheduler, tokens):
    sequence = add(scheduler, tokens)
    while sequence.remaining:
        step = scheduler.schedule(32)
        scheduler.advance(step)
    return sequence


def test_no_more_run_than_may():
    scheduler = make(max_sequences=2)
    for i in range(3):
        add(scheduler, [i], arrival=i)
    run(scheduler)
    assert [len(scheduler.running), len(scheduler.waiting)] == [2, 1]


def test_admission_is_in_order_of_arrival():
    scheduler = make(max_sequences=1)
    late, early = add(scheduler, [1], arrival=7), add(scheduler, [2], arrival=3)
    assert [s for s, *_ in run(scheduler)] == [early]
    scheduler.remove(early)
    assert [s for s, *_ in run(scheduler)] == [late]


def test_who_runs_keeps_a_page_to_grow_into():
    scheduler = make(num_pages=3)
    add(scheduler, range(2))
    run(scheduler)
    b = add(scheduler, range(10, 18))
    run(scheduler)
    assert b.state is State.WAITING


def test_a_finished_prompt_is_found_again_but_for_its_last_token():
    scheduler = make()
    scheduler.remove(_done(scheduler, range(8)))
    again = add(scheduler, range(8))
    assert run(scheduler) == [(again, 1, 1)]
    assert again.cached == 7


def test_a_sequence_that_goes_on_from_another_computes_only_what_is_new():
    scheduler = make()
    first = _done(scheduler, range(10))
    scheduler.remove(first)
    pages = list(range(10))
    again = add(scheduler, [*pages, 77, 78])
    step = scheduler.schedule(32)
    assert [(s.count, s.outputs) for s in step.shares] == [(2, 1)]
    assert again.cached == 10
    assert step.copies == []  # its last page was nobody's: taken over, not copied


def test_a_page_that_somebody_holds_is_copied():
    scheduler = make()
    first = _done(scheduler, range(10))
    scheduler.offer_tail(first)
    again = add(scheduler, [*range(10), 77], arrival=9)
    step = scheduler.schedule(32)
    assert again.cached == 10
    assert step.copies == [(first.pages[2], again.pages[2])]
    assert again.pages[:2] == first.pages[:2]


def test_without_reuse_nothing_is_found():
    scheduler = make(reuse=False)
    scheduler.remove(_done(scheduler, range(8)))
    again = add(scheduler, range(8))
    run(scheduler)
    assert again.cached == 0


def test_where_pages_run_out_the_youngest_goes_back_to_waiting():
    scheduler = make(num_pages=4)
    a, b = add(scheduler, range(4), arrival=0), add(scheduler, range(10, 14), arrival=1)
    for _ in range(5):
        run(scheduler)
    assert (len(a.tokens), len(b.tokens)) == (9, 9)
    run(scheduler)
    assert (a.state, b.state) == (State.RUNNING, State.WAITING)
    assert b.pages == []
    assert b.computed == 0
    assert len(b.tokens) == 9
    assert scheduler.preemptions == 1


def test_who_was_preempted_comes_back_and_finds_what_is_left():
    scheduler = make(num_pages=4)
    a, b = add(scheduler, range(4), arrival=0), add(scheduler, range(10, 14), arrival=1)
    for _ in range(6):
        run(scheduler)
    scheduler.remove(a)
    run(scheduler)
    assert b.state is State.RUNNING
    assert b.cached > 0


def test_the_eldest_alone_can_always_go_on():
    scheduler = make(num_pages=4)
    sequences = [add(scheduler, range(i * 10, i * 10 + 4), arrival=i) for i in range(3)]
    for _ in range(60):
        run(scheduler)
        for s in sequences:
            if len(s.tokens) == 4 * PAGE:
                scheduler.remove(s)
    assert all(s.state is State.FINISHED for s in sequences)


@pytest.mark.parametrize("running", [False, True])
def test_who_is_removed_gives_everything_back(running):
    scheduler = make()
    a = add(scheduler, range(10))
    if running:
        run(scheduler)
    scheduler.remove(a)
    assert scheduler.ring.used == 0
    assert a.state is State.FINISHED
    assert not scheduler.schedule(32).shares


def test_what_is_removed_without_keeping_leaves_no_tail():
    scheduler = make()
    a = _done(scheduler, range(6))
    scheduler.remove(a, keep=False)
    assert scheduler.ring.cached == 1  # its full page, computed by a step that worked


def test_slots_of_those_who_run_are_never_shared():
    scheduler = make(max_sequences=3, num_pages=6)
    for i in range(6):
        add(scheduler, range(i * 10, i * 10 + 3), arrival=i)
    for _ in range(50):
        run(scheduler)
        slots = [s.slot for s in scheduler.running]
        assert len(set(slots)) == len(slots)
        for s in list(scheduler.running):
            if len(s.tokens) > 9:
                scheduler.remove(s)
    assert not scheduler.running
