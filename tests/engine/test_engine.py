"""What is cancelled, refused, failed or closed, and by whom."""

import logging
import threading
import time

import numpy as np
import pytest
from fake_backend import PROMPTS, VOCAB, Answer, answer_to, ask, drain, greedy, make_engine, wait_until

from edgellm.engine import Engine, EngineConfig, Request
from edgellm.errors import ContextLengthError, EdgeLLMError, EngineClosedError, QueueFullError, UsageError
from edgellm.sampling import SamplingParams


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
