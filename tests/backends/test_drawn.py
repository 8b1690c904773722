"""Tokens that are drawn in the step that computes their logits, on the way through the engine."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import VOCAB, tiny_llama

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.engine import Engine, EngineConfig, Request
from edgellm.engine.request import Chunk
from edgellm.gguf import open_gguf
from edgellm.sampling import SamplingParams

PROMPTS = [np.random.default_rng(n).integers(0, VOCAB, 5 + 9 * n).tolist() for n in range(4)]
PARAMS = [
    SamplingParams(temperature=0, max_tokens=20),
    SamplingParams(seed=3, max_tokens=20),
    SamplingParams(seed=4, max_tokens=20, n=2, repeat_penalty=1.3, logit_bias={7: -np.inf}, logprobs=2),
    SamplingParams(seed=5, max_tokens=20, temperature=1.2, top_k=0, top_p=1, min_p=0.02),
    SamplingParams(seed=6, max_tokens=20, typical_p=0.9),
]


class Undrawn(CPUBackend):
    """Leaves every choice to NumPy."""

    def drawn(self):
        return ()


class Counting(CPUBackend):
    """Counts the tokens that it was asked for, and those that it gave."""

    asked = given = 0

    def drawn(self):
        tokens = super().drawn()
        self.asked += len(tokens)
        self.given += sum(token >= 0 for token in tokens)
        return tokens


def answers(backend: CPUBackend) -> list[list[tuple]]:
    """What each request's choices get, all requests at once."""
    engine = Engine(backend, config=EngineConfig(max_sequences=6), start=False)
    events: list[list] = [[] for _ in PARAMS]
    for i, params in enumerate(PARAMS):
        engine.submit(Request(PROMPTS[i % len(PROMPTS)], params), events[i].append)
    while engine.step():
        pass
    engine.close()
    return [[(c.index, c.token_ids, c.logprobs) for c in each if isinstance(c, Chunk)] for each in events]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("drawn") / "tiny.gguf")


def load(path, cls):
    file = open_gguf(path)
    return cls(models.build(file), file, BackendConfig(max_sequences=6, threads=2))


def test_the_tokens_are_those_that_numpy_draws(path):
    counting = load(path, Counting)
    assert answers(counting) == answers(load(path, Undrawn))
    # All but the first two tokens of one row, and those of a sampler that only NumPy has.
    assert counting.given >= 20 + 20 + 2 * 19 + 20
    assert counting.given < counting.asked
