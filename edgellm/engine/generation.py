"""One choice of a request: logits in, chunks out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgellm.engine.request import Chunk, FinishReason, TokenLogprob
from edgellm.sampling import Draw, Sampler, SamplingParams, StopMatcher, token_logprobs


class Decoder(Protocol):
    """Token ids to text, one at a time."""

    def push(self, token_id: int) -> str: ...

    def flush(self) -> str: ...


class NoText:
    """The decoder of an engine without a tokenizer."""

    def push(self, token_id: int) -> str:
        """Nothing."""
        return ""

    def flush(self) -> str:
        """Nothing."""
        return ""


class Generation:
    """Samples choice `index` of a request, decodes it, and ends it, after `limit` tokens at the latest."""

    def __init__(
        self,
        index: int,
        params: SamplingParams,
        seed: int,
        decoder: Decoder,
        end_ids: Collection[int],
        limit: int,
    ) -> None:
        forbidden = sorted(end_ids) if params.ignore_eos else ()
        self.index, self._params, self._limit, self._decoder = index, params, limit, decoder
        self._sampler = Sampler(params, seed, index, forbidden)
        self._matcher = StopMatcher(params.stops)
        self._ends = frozenset(params.stop_token_ids) | (
            frozenset() if params.ignore_eos else frozenset(end_ids)
        )
        self.tokens = 0
        self.finished = False

    def draw(self, history: Sequence[int], vocab: int) -> Draw | None:
        """How a backend may choose the token after `history` among the first `vocab`."""
        return self._sampler.draw(history, vocab) if self._limit else None

    def accept(
        self, logits: NDArray[np.float32], history: Sequence[int], drawn: int = -1
    ) -> tuple[int | None, Chunk]:
        """The token after `history`, from logits [vocab] unless it is drawn (-1: it is not), and its chunk;
        no token at a silent end.
        """
        if self._limit == 0:
            return None, self.end("length")
        token = drawn if drawn >= 0 else self._sampler.sample(self._sampler.biased(logits), history)
        if token in self._ends:
            return None, self.end("stop")
        return token, self._chunk(token, self._logprobs(logits, token))

    def end(self, reason: FinishReason, text: str = "", token_ids: tuple[int, ...] = ()) -> Chunk:
        """The last chunk, with all text that was held back."""
        text += self._matcher.finish(self._decoder.flush())
        self.finished = True
        return Chunk(self.index, text, token_ids, finish_reason=reason)

    def _chunk(self, token: int, logprobs: tuple[TokenLogprob, ...]) -> Chunk:
        self.tokens += 1
        text, stopped = self._matcher.push(self._decoder.push(token))
        reason: FinishReason | None = None
        if stopped:
            reason = "stop"
        elif self.tokens >= self._limit:
            reason = "length"
            text += self._matcher.finish(self._decoder.flush())
        self.finished = reason is not None
        return Chunk(self.index, text, (token,), logprobs, reason)

    def _logprobs(self, logits: NDArray[np.float32], token: int) -> tuple[TokenLogprob, ...]:
        if self._params.logprobs is None:
            return ()
        biased = self._sampler.biased(logits)
        return (TokenLogprob(token, *token_logprobs(biased, token, self._params.logprobs)),)
