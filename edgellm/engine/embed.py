"""Vectors of texts, for models that pool: no sampling and no cache, each text whole in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import PAGE_SIZE, Backend, Batch, SequenceRows
from edgellm.engine.check import check_text, pools
from edgellm.engine.ring import Ring
from edgellm.errors import EngineClosedError, UsageError


def embed(
    backend: Backend, ring: Ring, texts: Sequence[Sequence[int]], stopped: Callable[[], bool]
) -> NDArray[np.float32]:
    """One vector a text, f32 [n, dim], in order. `stopped` is asked around each step.

    Raises UsageError for a model that does not pool and for ids that it does not know, ContextLengthError for
    a text that is longer than a step, EngineClosedError once it is stopped.
    """
    if not pools(backend.graph):
        raise UsageError("this model makes no embeddings: load one that pools, such as a BERT", "model")
    limit = min(backend.config.max_tokens, backend.graph.context_length)
    checked = [check_text(t, backend.graph.vocab_size, limit) for t in texts]
    width = backend.graph.output.width if backend.graph.output else 0
    vectors = [np.empty((0, width), np.float32)]
    _check_wanted(stopped)
    for group in _groups(checked, backend.config.max_tokens, backend.config.max_sequences):
        vectors.append(_run(backend, ring, group))
        _check_wanted(stopped)  # after the last one, too: a step that was broken off gives anything
    return np.concatenate(vectors)


def _check_wanted(stopped: Callable[[], bool]) -> None:
    if stopped():
        raise EngineClosedError("the engine was closed before all texts had their vectors")


def _groups(texts: list[list[int]], max_tokens: int, max_sequences: int) -> Iterator[list[list[int]]]:
    """Neighbouring texts, as many as fit into a step."""
    group: list[list[int]] = []
    for text in texts:
        if group and (len(group) == max_sequences or sum(map(len, group)) + len(text) > max_tokens):
            yield group
            group = []
        group.append(text)
    if group:
        yield group


def _run(backend: Backend, ring: Ring, group: list[list[int]]) -> NDArray[np.float32]:
    """One step, in pages that are held only as long."""
    held: list[int] = []
    rows: list[SequenceRows] = []
    start = 0
    try:
        for text in group:
            count = -(-len(text) // PAGE_SIZE)
            if ring.available < count:
                raise UsageError(
                    "the KV cache is full; load the model with a larger memory_limit", "memory_limit"
                )
            pages = [ring.allocate() for _ in range(count)]
            held += pages
            rows.append(SequenceRows(start, len(text), 0, pages))
            start += len(text)
        vectors = backend.execute(Batch([t for text in group for t in text], rows, []))
        return np.array(vectors, np.float32)
    finally:
        ring.release(held)
