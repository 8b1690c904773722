"""What goes into the engine and what comes out: requests, and the events that answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from edgellm.sampling import SamplingParams

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Request:
    """A prompt and how to go on from it. `skip_special` leaves control tokens out of the text."""

    prompt_token_ids: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    skip_special: bool = True


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log probability of a token (after the logit bias, before any sampler), and of the likeliest."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Progress:
    """Prompt tokens processed so far, of which `cached` came from the cache."""

    processed: int
    total: int
    cached: int


@dataclass(frozen=True)
class Chunk:
    """New output of choice `index`; `finish_reason` is set on the last chunk of its choice.

    `text` may be empty while a character is incomplete or a stop string is possible.
    """

    index: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds and tokens of one request."""

    queued_s: float
    prefill_s: float
    decode_s: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def ttft_s(self) -> float:
        """From submission to the first token."""
        return self.queued_s + self.prefill_s

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens computed (not cached) per second."""
        return (self.prompt_tokens - self.cached_tokens) / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tps(self) -> float:
        """Tokens per second after the first; 0 where there are none."""
        return max(self.completion_tokens - 1, 0) / self.decode_s if self.decode_s else 0.0


@dataclass(frozen=True)
class Finished:
    """The last event of a request that was answered."""

    timings: Timings


@dataclass(frozen=True)
class Failed:
    """The last event of a request that could not be answered."""

    error: Exception


Event = Progress | Chunk | Finished | Failed
Deliver = Callable[[Event], None]  # called on the engine's thread: it must be quick and must not raise
