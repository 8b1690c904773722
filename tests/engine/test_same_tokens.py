"""Same request, same tokens: whatever runs beside it, and whatever is shared."""

import numpy as np
import pytest
from fake_backend import (
    PROMPTS,
    FakeTokenizer,
    answer_to,
    ask,
    drain,
    greedy,
    logits_after,
    make_engine,
    some_steps,
)
from hypothesis import given, settings
from hypothesis import strategies as st


def test_greedy_tokens_are_the_models_own():
    answer = answer_to(make_engine(), PROMPTS[2])
    assert answer.ids() == greedy(PROMPTS[2], 8)
    assert answer.reason() == "length"


@pytest.mark.parametrize("stateful", [False, True])
def test_eight_together_equal_each_alone(stateful):
    alone = [answer_to(make_engine(stateful=stateful), p, temperature=1, seed=5).ids() for p in PROMPTS]
    engine = make_engine(stateful=stateful)
    answers = [ask(engine, p, temperature=1, seed=5) for p in PROMPTS]
    drain(engine)
    assert [a.ids() for a in answers] == alone
    assert max(len(b.sequences) for b in engine.backend.batches) == 8


@pytest.mark.parametrize("max_tokens", [8, 9, 31, 64, 512])
def test_chunks_of_the_prompt_make_no_difference(max_tokens):
    engine = make_engine(max_tokens=max_tokens, engine={"min_chunk": 1})
    answer = answer_to(engine, PROMPTS[7], max_tokens=40)
    assert answer.ids() == greedy(PROMPTS[7], 40)


def test_a_cache_hit_equals_a_miss():
    engine = make_engine()
    first = answer_to(engine, PROMPTS[5])
    second = answer_to(engine, PROMPTS[5])
    assert second.ids() == first.ids() == greedy(PROMPTS[5], 8)
    assert (first.timings.cached_tokens, second.timings.cached_tokens) == (0, len(PROMPTS[5]) - 1)


@pytest.mark.parametrize("stateful", [False, True])
def test_preemption_equals_none(stateful):
    engine = make_engine(num_pages=6, context_length=192, stateful=stateful)
    answers = [ask(engine, p, max_tokens=70) for p in PROMPTS[:4]]
    drain(engine)
    assert engine.stats().preemptions > 0
    assert [a.ids() for a in answers] == [greedy(p, 70) for p in PROMPTS[:4]]


def test_seeds_reproduce_and_differ():
    def sample(seed):
        return answer_to(make_engine(), PROMPTS[1], temperature=1, seed=seed, max_tokens=20).ids()

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)
    assert sample(None) != sample(None)


@settings(max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=100), min_size=1, max_size=8),
    num_pages=st.integers(6, 20),
    cancelled=st.integers(0, 30),
)
def test_no_mixture_of_requests_changes_an_answer(prompts, num_pages, cancelled):
    engine = make_engine(num_pages=num_pages, context_length=192, max_sequences=4)
    answers = []
    for i, prompt in enumerate(prompts):
        answers.append(ask(engine, prompt, max_tokens=5 + 11 * i))
        engine.step()
    for _ in range(cancelled):
        engine.step()
    answers[0].ticket.cancel()
    drain(engine)
    for i, (answer, prompt) in enumerate(zip(answers, prompts, strict=True)):
        count = len(answer.ids()) if i == 0 else 5 + 11 * i
        assert answer.ids() == greedy(prompt, count)
    assert engine.stats().pages_used == 0


@pytest.mark.parametrize("others", [False, True])
def test_in_a_conversation_all_but_the_new_tokens_come_from_the_cache(others):
    engine = make_engine(tokenizer=FakeTokenizer())
    history = [1, 2, 3, 4, 5]
    for turn in range(5):
        new = [10 + turn, 20 + turn, 30 + turn]
        prompt = history + new
        expected = greedy(prompt, 11)
        answer = answer_to(engine, prompt, max_tokens=30, logit_bias={}, stop_token_ids=[expected[10]])
        assert answer.reason() == "stop"
        history = prompt + answer.ids()
        if turn:
            assert answer.timings.cached_tokens == len(prompt) - len(new)
        if others:
            answer_to(engine, [40 + turn] * 50)


def test_two_that_share_a_beginning_share_its_pages():
    engine = make_engine()
    shared = PROMPTS[6][:96]
    answer_to(engine, shared)
    for i in (1, 2, 3):
        ask(engine, [*shared, i], max_tokens=40)
    some_steps(engine, 3)
    assert engine.stats().pages_used <= 3 + 3


def test_two_alike_at_once_hold_one_copy():
    engine = make_engine(max_tokens=512)
    answers = [ask(engine, PROMPTS[7][:100], max_tokens=60) for _ in range(4)]
    for _ in range(8):
        engine.step()
    assert engine.stats().pages_used <= 3 + 4
    drain(engine)
    assert {tuple(a.ids()) for a in answers} == {tuple(greedy(PROMPTS[7][:100], 60))}


def test_scoring_gives_every_row_and_touches_no_cache():
    engine = make_engine(max_outputs=8)
    answer_to(engine, PROMPTS[3])
    cached = engine.stats().pages_cached
    rows = engine.score(PROMPTS[3])
    expected = [logits_after(PROMPTS[3][: i + 1]) for i in range(len(PROMPTS[3]))]
    np.testing.assert_array_equal(rows, expected)
    assert engine.stats().pages_cached == cached
    assert answer_to(engine, PROMPTS[3]).timings.cached_tokens == len(PROMPTS[3]) - 1


def test_scoring_while_others_run_changes_nothing():
    engine = make_engine(start=True, num_pages=24, context_length=256)
    answers = [ask(engine, p, max_tokens=60) for p in PROMPTS[:6]]
    rows = engine.score(PROMPTS[7])
    np.testing.assert_array_equal(rows[-1], logits_after(PROMPTS[7]))
    for answer, prompt in zip(answers, PROMPTS, strict=False):
        assert answer.done.wait(10)
        assert answer.ids() == greedy(prompt, 60)
    engine.close()


@pytest.mark.parametrize("stateful", [False, True])
@pytest.mark.parametrize("length", [31, 32, 33, 64, 70])
def test_choices_are_what_each_would_be_alone(stateful, length):
    prompt = PROMPTS[7][:length]
    many = answer_to(make_engine(stateful=stateful), prompt, n=4, temperature=1, seed=3, max_tokens=40)
    few = answer_to(make_engine(stateful=stateful), prompt, n=2, temperature=1, seed=3, max_tokens=40)
    assert [many.ids(i) for i in range(2)] == [few.ids(i) for i in range(2)]
    assert len({tuple(many.ids(i)) for i in range(4)}) == 4
    assert many.timings.completion_tokens == 160


def test_choices_share_the_prompt():
    engine = make_engine()
    answer = ask(engine, PROMPTS[7][:110], n=4, max_tokens=10)
    some_steps(engine, 8)
    assert engine.stats().pages_used <= 3 + 4 + 1
    drain(engine)
    computed = sum(len(b.tokens) for b in engine.backend.batches)
    assert computed == 110 + 4 * 9
    assert {tuple(answer.ids(i)) for i in range(4)} == {tuple(greedy(PROMPTS[7][:110], 10))}


def test_more_choices_than_may_run_take_turns():
    engine = make_engine(max_sequences=2)
    answer = answer_to(engine, PROMPTS[1], n=7, max_tokens=5)
    assert [len(answer.ids(i)) for i in range(7)] == [5] * 7
