import logging
import threading
import time

import numpy as np
import pytest
from fake_backend import (
    END,
    VOCAB,
    Answer,
    FakeTokenizer,
    answer_to,
    ask,
    drain,
    greedy,
    logits_after,
    make_engine,
    some_steps,
    wait_until,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.engine import Engine, EngineConfig, Request
from edgellm.errors import ContextLengthError, EdgeLLMError, EngineClosedError, QueueFullError, UsageError
from edgellm.sampling import SamplingParams, token_logprobs

PROMPTS = [[1 + (i * 7 + j * j) % 50 for j in range(3 + 17 * i)] for i in range(8)]


# -- the same request gives the same tokens -------------------------------------------------------------


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


# -- the prefix cache -----------------------------------------------------------------------------------


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


# -- choices --------------------------------------------------------------------------------------------


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


# -- where an answer ends -------------------------------------------------------------------------------


def test_an_end_token_ends_silently():
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], logit_bias={END: 55}, max_tokens=500)
    assert answer.reason() == "stop"
    assert END not in answer.ids()
    assert "</s>" not in answer.text()
    assert answer.timings.completion_tokens == len(answer.ids())
    assert answer.ids() == greedy(PROMPTS[1], len(answer.ids()))
    assert answer.ids()


def test_ignore_eos_never_chooses_an_end_token():
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], logit_bias={END: 100}, ignore_eos=True, max_tokens=30)
    assert answer.reason() == "length"
    assert len(answer.ids()) == 30


def test_a_stop_token_ends_silently():
    expected = greedy(PROMPTS[1], 8)
    answer = answer_to(make_engine(), PROMPTS[1], stop_token_ids=[expected[5]])
    assert answer.ids() == expected[:5]
    assert answer.reason() == "stop"
    assert answer_to(make_engine(), PROMPTS[1], stop_token_ids=expected).timings.decode_tps == 0


def text_of(ids):
    return b"".join(FakeTokenizer().token_bytes(i) for i in ids).decode("utf-8", "replace")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_stop_string_across_tokens_cuts_before_itself(size):
    full = text_of(greedy(PROMPTS[1], 20))
    stop = full[9 : 9 + size]
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], stop=["\0never", stop], max_tokens=20)
    assert answer.text() == full[: full.index(stop)]
    assert answer.reason() == "stop"


def test_text_is_whole_characters_and_held_back_only_while_it_must_be():
    engine = make_engine(tokenizer=FakeTokenizer())
    full = text_of(greedy(PROMPTS[1], 60))
    answer = answer_to(engine, PROMPTS[1], max_tokens=60)
    assert answer.text() == full
    forced = answer_to(engine, PROMPTS[2], logit_bias={60: 90}, max_tokens=3)
    assert forced.text() == "\ufffd" * 3
    assert [c.text for c in forced.chunks] == ["", "\ufffd", "\ufffd\ufffd"]


def test_text_held_for_a_stop_string_comes_with_the_end():
    full = text_of(greedy(PROMPTS[1], 8))
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], stop=full[-2:] + "\0")
    assert answer.text() == full
    assert answer.reason() == "length"


def test_the_context_ends_an_answer():
    engine = make_engine(num_pages=2, context_length=1000)
    assert engine.context_length == 64
    answer = answer_to(engine, PROMPTS[2][:30], max_tokens=None)
    assert (len(answer.ids()), answer.reason()) == (34, "length")
    full = answer_to(engine, (PROMPTS[7])[:64], max_tokens=None)
    assert (len(full.ids()), full.reason()) == (1, "length")


def test_no_tokens_asked_for_gives_none():
    answer = answer_to(make_engine(), PROMPTS[1], max_tokens=0, n=2)
    assert answer.timings.decode_tps == 0
    assert [answer.ids(i) for i in range(2)] == [[], []]
    assert [answer.reason(i) for i in range(2)] == ["length", "length"]


def test_logprobs_are_those_of_the_logits():
    answer = answer_to(make_engine(), PROMPTS[1], logprobs=3, max_tokens=2)
    first = answer.chunks[0].logprobs[0]
    logprob, top = token_logprobs(logits_after(PROMPTS[1]), answer.ids()[0], 3)
    assert (first.token_id, first.logprob, first.top) == (answer.ids()[0], logprob, top)
    assert first.top[0][0] == answer.ids()[0]


# -- events ---------------------------------------------------------------------------------------------


def test_progress_grows_to_the_whole_prompt():
    engine = make_engine(max_tokens=8)
    answer = answer_to(engine, PROMPTS[4])
    done = [p.processed for p in answer.progress]
    assert done == sorted(set(done))
    assert done[-1] == len(PROMPTS[4])
    assert {p.total for p in answer.progress} == {len(PROMPTS[4])}


def test_timings_count_tokens_and_seconds():
    answer = answer_to(make_engine(), PROMPTS[4])
    t = answer.timings
    assert (t.prompt_tokens, t.cached_tokens, t.completion_tokens) == (len(PROMPTS[4]), 0, 8)
    assert min(t.queued_s, t.prefill_s, t.decode_s) >= 0


def test_stats_add_up():
    engine = make_engine()
    for prompt in PROMPTS[:3]:
        answer_to(engine, prompt)
    s = engine.stats()
    assert (s.requests, s.failed, s.running, s.waiting, s.pages_used) == (3, 0, 0, 0, 0)
    assert (s.prompt_tokens, s.generated_tokens) == (sum(map(len, PROMPTS[:3])), 24)
    assert s.pages_total == 64


# -- cancelling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 9])
def test_cancelling_gives_everything_back_whenever_it_comes(steps):
    engine = make_engine(max_tokens=16)
    answer = ask(engine, PROMPTS[2], max_tokens=50, n=2)
    other = ask(engine, PROMPTS[3])
    for _ in range(steps):
        engine.step()
    answer.ticket.cancel()
    answer.ticket.cancel()
    drain(engine)
    assert [answer.reason(i) for i in range(2)] == ["cancelled", "cancelled"]
    assert answer.timings.completion_tokens == len(answer.ids(0)) + len(answer.ids(1))
    assert engine.stats().pages_used == 0
    assert other.ids() == greedy(PROMPTS[3], 8)


def test_cancelling_what_is_over_changes_nothing():
    engine = make_engine()
    answer = answer_to(engine, PROMPTS[1])
    answer.ticket.cancel()
    drain(engine)
    assert answer.reason() == "length"


# -- what is refused ------------------------------------------------------------------------------------


def test_a_full_queue_refuses_and_then_accepts_again():
    engine = make_engine(max_sequences=1, max_queue=2)
    answers = [ask(engine, [1, 2]) for _ in range(3)]
    with pytest.raises(QueueFullError, match="3 requests run or wait, and at most 3 may"):
        ask(engine, [1, 2])
    drain(engine)
    assert all(a.done.is_set() for a in answers)
    ask(engine, [1, 2])


@pytest.mark.parametrize(
    ("prompt", "params", "error", "message"),
    [
        ([], {}, UsageError, "the prompt is empty"),
        ([VOCAB], {}, UsageError, "token id 64; ids go from 0 to 63"),
        ([-1], {}, UsageError, "token id -1"),
        (["a"], {}, UsageError, "is no token id"),
        ([1] * 2049, {}, ContextLengthError, "has 2049 tokens, but the context holds 2048"),
        ([1], {"logit_bias": {64: 1}}, UsageError, "logit_bias holds token id 64"),
        ([1], {"stop_token_ids": [99]}, UsageError, "stop_token_ids holds token id 99"),
    ],
)
def test_what_cannot_run_is_refused_at_once(prompt, params, error, message):
    engine = make_engine()
    with pytest.raises(error, match=message):
        ask(engine, prompt, **params)
    assert not engine.step()


@pytest.mark.parametrize(("context_length", "advised"), [(None, False), (64, True)])
def test_a_longer_context_is_advised_only_where_the_model_has_one(context_length, advised):
    engine = make_engine(engine={"context_length": context_length})
    with pytest.raises(ContextLengthError) as caught:
        ask(engine, [1] * (engine.context_length + 1))
    assert ("larger context_length" in str(caught.value)) == advised
    assert "shorten the prompt" in str(caught.value)


def test_an_encoder_does_not_generate():
    engine = make_engine()
    engine.backend.graph.causal = False
    with pytest.raises(UsageError, match="makes embeddings"):
        ask(engine, [1])
    with pytest.raises(UsageError, match="makes embeddings"):
        engine.score([1])


def test_a_language_model_does_not_embed():
    with pytest.raises(UsageError, match="makes no embeddings"):
        make_engine().embed([[1, 2]])


def test_a_backend_too_small_for_the_config_is_refused():
    backend = make_engine(max_sequences=2).backend
    with pytest.raises(
        UsageError, match="max_sequences is 4, but the backend was loaded with max_sequences 2"
    ):
        Engine(backend, None, EngineConfig(max_sequences=4), start=False)


# -- what goes wrong ------------------------------------------------------------------------------------


def test_a_step_that_fails_fails_who_took_part_and_the_engine_goes_on(caplog):
    engine = make_engine(max_sequences=1)
    hurt, waiting = ask(engine, PROMPTS[1]), ask(engine, PROMPTS[2])
    engine.backend.fail_next = ValueError("bad luck")
    with caplog.at_level(logging.CRITICAL, "edgellm"):
        drain(engine)
    assert isinstance(hurt.error, EdgeLLMError)
    assert "bad luck" in str(hurt.error)
    assert waiting.ids() == greedy(PROMPTS[2], 8)
    assert (engine.stats().failed, engine.stats().pages_used) == (1, 0)
    assert answer_to(engine, PROMPTS[1]).ids() == greedy(PROMPTS[1], 8)


def test_a_request_that_fails_hurts_no_other():
    engine = make_engine()
    biased = dict.fromkeys(range(VOCAB), -np.inf)
    hurt, fine = ask(engine, PROMPTS[1], logit_bias=biased), ask(engine, PROMPTS[2])
    drain(engine)
    assert "no token to choose" in str(hurt.error)
    assert fine.ids() == greedy(PROMPTS[2], 8)
    assert engine.stats().pages_used == 0


def test_requests_that_fail_are_counted_once_and_leave_the_queue_as_long_as_it_is():
    engine = make_engine(max_sequences=1, max_queue=1)
    for _ in range(3):
        answer_to(engine, [1, 2, 3], logit_bias=dict.fromkeys(range(VOCAB), -np.inf))
    assert (engine.stats().failed, engine.stats().prompt_tokens) == (3, 9)
    for _ in range(2):
        ask(engine, [1, 2, 3])
    with pytest.raises(QueueFullError, match="2 requests run or wait"):
        ask(engine, [1, 2, 3])


def test_a_listener_that_raises_hurts_no_other(caplog):
    engine = make_engine()

    def broken(event):
        raise RuntimeError("not listening")

    engine.submit(Request(PROMPTS[1], SamplingParams()), broken)
    fine = ask(engine, PROMPTS[2])
    with caplog.at_level(logging.CRITICAL, "edgellm"):
        drain(engine)
    assert fine.ids() == greedy(PROMPTS[2], 8)
    assert engine.stats().pages_used == 0


# -- the thread -----------------------------------------------------------------------------------------


def test_many_threads_may_ask_at_once():
    engine = make_engine(start=True)
    answers = {}

    def client(i):
        answers[i] = ask(engine, PROMPTS[i % 8])
        assert answers[i].done.wait(20)

    threads = [threading.Thread(target=client, args=(i,)) for i in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(a.ids() == greedy(PROMPTS[i % 8], 8) for i, a in answers.items())
    assert engine.stats().running == 0
    engine.close()


def test_closing_is_quick_and_fails_what_is_unfinished():
    engine = make_engine(start=True)
    engine.backend.delay_s = 30.0  # until cancelled
    answer = ask(engine, PROMPTS[1])
    wait_until(lambda: engine.stats().running)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 0.5
    assert answer.done.wait(1)
    assert isinstance(answer.error, EngineClosedError)
    wait_until(lambda: engine.backend.closed)
    with pytest.raises(EngineClosedError):
        ask(engine, [1])
    engine.close()


def test_closing_soon_needs_no_lock_and_waits_for_nothing():
    engine = make_engine(start=True)
    engine.backend.delay_s = 0.5
    answer = ask(engine, PROMPTS[1])
    wait_until(lambda: engine.stats().running)
    began = time.monotonic()
    with engine._lock:
        engine.close_soon()
    assert time.monotonic() - began < 0.3
    assert answer.done.wait(5)
    assert isinstance(answer.error, EngineClosedError)
    wait_until(lambda: engine.backend.closed)


def test_closing_is_heard_among_other_commands():
    engine = make_engine(start=True)
    ready = threading.Event()
    for command in (ready.wait, engine.close, lambda: None):
        engine._inbox.put(command)
    ready.set()
    engine._thread.join(5)
    assert engine.backend.closed


def test_cancelling_from_another_thread_is_heard_during_a_long_answer():
    engine = make_engine(start=True)
    engine.backend.delay_s = 0.01
    answer = ask(engine, PROMPTS[1], max_tokens=2000)
    wait_until(lambda: len(answer.chunks) > 2)
    answer.ticket.cancel()
    assert answer.done.wait(1)
    assert answer.reason() == "cancelled"
    wait_until(lambda: engine.stats().pages_used == 0)
    engine.close()


def test_requests_without_a_thread_wait_for_steps():
    engine = make_engine()
    answer = Answer()
    engine.submit(Request([1, 2], SamplingParams(max_tokens=1)), answer)
    assert not answer.chunks
    assert engine.step()
    assert answer.done.is_set()
    assert not engine.step()
