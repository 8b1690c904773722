"""What is fixed when an engine starts, and what it counts while it runs."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import UsageError


@dataclass(frozen=True)
class EngineConfig:
    """Bounds of the engine. UsageError for values that make no sense."""

    max_sequences: int = 8  # that run at once
    max_queue: int = 64  # requests that may wait beside those
    context_length: int | None = None  # tokens of one sequence; None: as many as model and ring hold
    step_seconds: float = 0.1  # what a step with prefill aims at
    min_chunk: int = 8  # prompt tokens a step takes however slow the machine
    salt: bytes = b""  # what else changes the bytes in the cache

    def __post_init__(self) -> None:
        for name in ("max_sequences", "min_chunk"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}: it must be at least 1", name)
        if self.max_queue < 0:
            raise UsageError(f"max_queue is {self.max_queue}: it must be at least 0", "max_queue")
        if self.context_length is not None and self.context_length < 1:
            raise UsageError(
                f"context_length is {self.context_length}: it must be at least 1", "context_length"
            )


@dataclass(frozen=True)
class Stats:
    """Counts of an engine since it began, and what it holds now."""

    running: int
    waiting: int
    pages_total: int
    pages_used: int
    pages_cached: int
    context_length: int
    requests: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    steps: int
    preemptions: int
    prefill_chunk: int
