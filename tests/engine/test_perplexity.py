"""Perplexity against a plain loop over the definition, and against models whose perplexity is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import VOCAB, tiny_llama

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.reference import ReferenceBackend
from edgellm.engine.perplexity import MIN_CTX, cut, negative_log_probabilities, perplexity
from edgellm.errors import ContextLengthError, EdgeLLMError, UsageError
from edgellm.gguf import open_gguf

TOKENS = [(i * 48271 + 11) % VOCAB for i in range(150)]


class Foreseeing:
    """A backend that gives `high` to the token after the one it has read plus one, and 0 to all others."""

    def __init__(self, high, vocab=50, max_outputs=7):
        self.graph = SimpleNamespace(vocab_size=vocab, causal=True, output=None, context_length=1 << 20)
        self.config = SimpleNamespace(max_tokens=16, max_outputs=max_outputs)
        self.high, self.steps = high, []

    def execute(self, batch):
        (rows,) = batch.sequences
        self.steps.append((rows.position, len(batch.tokens), len(batch.outputs)))
        logits = np.zeros((len(batch.outputs), self.graph.vocab_size), np.float32)
        for row, index in enumerate(batch.outputs):
            logits[row, (batch.tokens[index] + 1) % self.graph.vocab_size] = self.high
        return logits


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model's graph and file."""
    with open_gguf(tiny_llama(tmp_path_factory.mktemp("perplexity") / "tiny.gguf")) as file:
        yield models.build(file), file


def backend_of(model, **sizes):
    graph, file = model
    return ReferenceBackend(graph, file, BackendConfig(**{"kv_type": "f32", "max_tokens": 64, **sizes}))


def naive_perplexity(model, tokens, ctx, bos):
    """The definition, a window and a token at a time, every window's logits in one piece."""
    from support import run_backend

    total, count = 0.0, 0
    for number in range(len(tokens) // ctx):
        window = tokens[number * ctx : (number + 1) * ctx]
        if bos is not None:
            window[0] = bos
        logits = run_backend(backend_of(model, max_outputs=ctx, max_tokens=ctx), window)
        for position in range(ctx // 2, ctx - 1):
            row = [float(x) for x in logits[position]]
            total -= row[window[position + 1]] - math.log(sum(math.exp(x) for x in row))
            count += 1
    return math.exp(total / count), count


@pytest.mark.parametrize("bos", [None, 7])
@pytest.mark.parametrize("ctx", [MIN_CTX, 5, 32, 63, 150])
def test_it_is_the_definition(model, ctx, bos):
    result = perplexity(backend_of(model), cut(TOKENS, ctx, bos))
    want, count = naive_perplexity(model, list(TOKENS), ctx, bos)
    assert result.perplexity == pytest.approx(want, rel=1e-5)
    assert result.tokens == count == (ctx - 1 - ctx // 2) * (len(TOKENS) // ctx)
    assert result.windows == len(TOKENS) // ctx


@pytest.mark.parametrize("outputs", [1, 3, 16, 64])
def test_the_size_of_steps_changes_nothing(outputs):
    counting = [i % 50 for i in range(100)]
    backend = Foreseeing(3.0, max_outputs=outputs)
    result = perplexity(backend, cut(counting, 40))
    assert result.perplexity == pytest.approx((math.exp(3) + 49) / math.exp(3), rel=1e-6)
    assert sum(tokens for _, tokens, _ in backend.steps) >= 2 * 39
    assert sum(rows for *_, rows in backend.steps) == result.tokens == 2 * 19
    assert all(rows <= outputs for *_, rows in backend.steps)


def test_who_knows_nothing_has_the_vocabulary_as_perplexity():
    result = perplexity(Foreseeing(0.0), cut([1] * 64, 64))
    assert result.perplexity == pytest.approx(50)
    assert result.standard_error == pytest.approx(0, abs=1e-9)


def test_the_standard_error_is_that_of_the_mean_loss():
    """Half of the scored tokens are foreseen: losses of two kinds, whose spread is known."""
    tokens = [0, 0, 0, 0, 1, 1, 2, 2, 3]  # scored: 1 after 0, 1 after 1, 2 after 1, 2 after 2
    result = perplexity(Foreseeing(2.0), [tokens[:9]])
    hit, miss = math.log(math.exp(2) + 49) - 2, math.log(math.exp(2) + 49)
    losses = [hit, miss, hit, miss]
    assert result.tokens == 9 - 1 - 4
    assert result.perplexity == pytest.approx(math.exp(sum(losses) / 4), rel=1e-6)
    deviation = math.sqrt(sum((x - sum(losses) / 4) ** 2 for x in losses) / 3)
    assert result.standard_error == pytest.approx(result.perplexity * deviation / 2, rel=1e-5)


def test_windows_begin_as_the_model_wants_and_the_rest_is_left_out():
    assert cut(range(11), 4, bos=99) == [[99, 1, 2, 3], [99, 5, 6, 7]]
    assert cut(range(8), 4) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_text_shorter_than_a_window_is_refused_with_both_numbers():
    with pytest.raises(ContextLengthError, match=r"7 tokens.*8"):
        cut(range(7), 8)


def test_a_window_that_scores_nothing_is_refused():
    with pytest.raises(UsageError, match=str(MIN_CTX)):
        cut(range(7), MIN_CTX - 1)


def test_progress_counts_windows():
    seen = []
    perplexity(Foreseeing(1.0), cut([1] * 30, 10), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("high", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_an_error(high):
    with pytest.raises(EdgeLLMError, match="no sense"):
        perplexity(Foreseeing(high), [[0, 1, 2, 3, 4, 5]])


def test_probabilities_of_huge_logits_do_not_overflow():
    logits = np.array([[1e4, 1e4, 0], [-1e4, 0, 5]], np.float32)
    assert negative_log_probabilities(logits, [1, 2]) == pytest.approx(
        [math.log(2), math.log1p(math.exp(-5))]
    )
