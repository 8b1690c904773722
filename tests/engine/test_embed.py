import _thread
import threading
import time

import numpy as np
import pytest
from fake_backend import FakeBackend, wait_until

from edgellm.engine import Engine, EngineConfig
from edgellm.errors import ContextLengthError, EngineClosedError, UsageError
from edgellm.graph.graph import S, Value


class PoolingBackend(FakeBackend):
    """The vector of a text is its length and the sum of its ids."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.graph.output = Value(0, (S, 2), "f32", None)
        self.graph.causal = False

    def execute(self, batch):
        self.on_execute(batch)
        self.batches.append(batch)
        assert len(batch.tokens) <= self.config.max_tokens
        assert len(batch.sequences) <= self.config.max_sequences
        parts = [batch.tokens[s.start : s.start + s.count] for s in batch.sequences]
        return np.array([[len(p), sum(p)] for p in parts], np.float32)


def make(start=False, **sizes):
    return Engine(PoolingBackend(**sizes), None, EngineConfig(max_sequences=8), start=start)


TEXTS = [[1 + (i * j) % 60 for j in range(1 + 5 * i)] for i in range(12)]


@pytest.mark.parametrize("max_tokens", [56, 64, 1000])
def test_every_text_gets_its_vector_in_order(max_tokens):
    engine = make(max_tokens=max_tokens)
    assert engine.embed(TEXTS).tolist() == [[len(t), sum(t)] for t in TEXTS]
    assert engine.stats().pages_used == 0


def test_no_texts_give_no_vectors():
    assert make().embed([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ([], UsageError, "empty"),
        ([99], UsageError, "token id 99"),
        ([1] * 65, ContextLengthError, "has 65 tokens"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_before_anything_runs(text, error, message):
    engine = make(max_tokens=64)
    with pytest.raises(error, match=message):
        engine.embed([[1, 2], text])
    assert engine.backend.batches == []


def test_closing_ends_what_runs_after_its_step_and_begins_nothing_else():
    engine = make(start=True, max_tokens=64)
    errors = []

    def ask():
        try:
            engine.embed([[1] * 64] * 5)
        except EngineClosedError as error:
            errors.append(error)

    def close(batch):
        wait_until(lambda: engine._inbox.qsize() == 1)  # the other one waits
        engine.close()

    engine.backend.on_execute = close
    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(5)
    assert len(errors) == 2
    assert len(engine.backend.batches) == 1
    assert engine.stats().pages_used == 0


def test_the_vectors_of_a_step_that_was_broken_off_are_not_given_out():
    engine = make(start=True)
    engine.backend.on_execute = lambda batch: engine.close()
    with pytest.raises(EngineClosedError, match="closed before all texts"):
        engine.embed([[1]])


def test_ctrl_c_ends_what_runs_after_its_step():
    engine = make(start=True, max_tokens=64)

    def press(batch):
        if not engine.backend.batches:
            _thread.interrupt_main()
        time.sleep(0.02)

    engine.backend.on_execute = press
    with pytest.raises(KeyboardInterrupt):
        engine.embed([[1] * 64] * 100)
    assert engine.embed([[1, 2]]).tolist() == [[2, 3]]
    assert len(engine.backend.batches) < 50
    engine.close()
