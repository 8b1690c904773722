"""How well a model foresees a text: the perplexity of its tokens, as llama.cpp defines it.

The tokens are cut into windows of `ctx`, each read from an empty context; what is left over at the end is not
used. Where the model begins its texts with a token, that takes the place of each window's first one. A
window's tokens after its middle are scored, so that each has half a window before it: of `ctx` tokens those
from ctx // 2 + 1 on. The perplexity is exp of the mean of -log(probability) over all of them.

Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/perplexity/perplexity.cpp, `perplexity`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import PAGE_SIZE, Backend, Batch, SequenceRows
from edgellm.engine.check import check_prompt
from edgellm.errors import ContextLengthError, EdgeLLMError, UsageError

MIN_CTX = 4  # fewer tokens leave none, or nothing before them
_MOST_NATS = 700.0  # exp of more is no number; of a model that guesses it is the logarithm of the vocabulary


@dataclass(frozen=True)
class Perplexity:
    """The perplexity of a text's windows, its standard error, and how many tokens were scored."""

    perplexity: float
    standard_error: float
    tokens: int
    windows: int


def cut(tokens: Sequence[int], ctx: int, bos: int | None = None) -> list[list[int]]:
    """The windows of a text, each begun by `bos` if it is not None.

    Raises ContextLengthError for a text of less than one window, UsageError for a window too small.
    """
    if ctx < MIN_CTX:
        raise UsageError(f"ctx is {ctx}: a window needs at least {MIN_CTX} tokens", "ctx")
    if len(tokens) < ctx:
        raise ContextLengthError(
            f"the text has {len(tokens)} tokens, but a window has {ctx}: take a longer text or a smaller ctx"
        )
    windows = [list(tokens[i : i + ctx]) for i in range(0, len(tokens) - ctx + 1, ctx)]
    return windows if bos is None else [[bos, *window[1:]] for window in windows]


def perplexity(
    backend: Backend, windows: Sequence[Sequence[int]], progress: Callable[[int, int], None] | None = None
) -> Perplexity:
    """The perplexity of at least one window of tokens, on a backend that has pages for one.

    `progress` is told how many windows are done, and of how many. Raises UsageError for a model that makes
    embeddings and for tokens it does not know, EdgeLLMError for logits that are not finite.
    """
    losses: list[NDArray[np.float64]] = []
    for number, window in enumerate(windows, 1):
        ids = check_prompt(window, backend.graph, backend.graph.vocab_size, len(window))
        losses += _losses(backend, ids, len(ids) // 2)
        if progress:
            progress(number, len(windows))
    every = np.concatenate(losses)
    mean = float(every.mean())
    if not mean < _MOST_NATS:
        raise EdgeLLMError(f"the mean of -log(probability) is {mean}: the model's logits make no sense")
    deviation = float(every.std(ddof=1)) if len(every) > 1 else 0.0
    value = math.exp(mean)
    return Perplexity(value, value * deviation / math.sqrt(len(every)), len(every), len(windows))


def _losses(backend: Backend, tokens: list[int], first: int) -> Iterator[NDArray[np.float64]]:
    """-log(probability) of each token after number `first`, f64, in steps of what the backend takes."""
    pages = range(-(-len(tokens) // PAGE_SIZE))
    step = min(backend.config.max_tokens, backend.config.max_outputs)
    for start in range(0, len(tokens) - 1, step):
        part = tokens[start : start + step]
        outputs = [i for i in range(len(part)) if first <= start + i < len(tokens) - 1]
        logits = backend.execute(Batch(part, [SequenceRows(0, len(part), start, pages)], outputs))
        if outputs:
            yield negative_log_probabilities(logits, [tokens[start + i + 1] for i in outputs])


def negative_log_probabilities(logits: NDArray[np.float32], tokens: Sequence[int]) -> NDArray[np.float64]:
    """-log softmax(logits)[token] of each row, f64 [n], from f32 [n, vocab]."""
    highest = logits.max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # of infinite logits; the result is then no number, which shows
        sums = np.exp(logits - highest).sum(axis=-1, dtype=np.float64)
    chosen = logits[np.arange(len(tokens)), list(tokens)].astype(np.float64)
    losses: NDArray[np.float64] = np.log(sums) + highest[:, 0] - chosen
    return losses
