import numpy as np
import pytest
from fake_backend import FakeBackend

from edgellm.engine import Engine, EngineConfig
from edgellm.errors import ContextLengthError, UsageError
from edgellm.graph.graph import S, Value


class PoolingBackend(FakeBackend):
    """The vector of a text is its length and the sum of its ids."""

    def __init__(self, **sizes):
        super().__init__(**sizes)
        self.graph.output = Value(0, (S, 2), "f32", None)
        self.graph.causal = False

    def execute(self, batch):
        self.batches.append(batch)
        assert len(batch.tokens) <= self.config.max_tokens
        assert len(batch.sequences) <= self.config.max_sequences
        parts = [batch.tokens[s.start : s.start + s.count] for s in batch.sequences]
        return np.array([[len(p), sum(p)] for p in parts], np.float32)


def make(**sizes):
    return Engine(PoolingBackend(**sizes), None, EngineConfig(max_sequences=8), start=False)


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
