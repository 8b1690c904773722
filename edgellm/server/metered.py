"""An engine whose requests are counted: their events pass by here on their way to whoever asked.

Names and meanings are vLLM's (https://docs.vllm.ai/en/stable/usage/metrics/) with our prefix, so that
dashboards made for it need another prefix only. Tokens are counted as their events pass; times are entered
once a request.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from edgellm.engine.request import Chunk, Deliver, Event, Failed, Finished, Progress, Request, Timings
from edgellm.server.model import Cancellable, ServedEngine

PREFIX = "edgellm:"
MODEL = "model_name"
_SECONDS = 5  # over which a speed "now" is taken

_TTFT = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
    20,
    40,
    80,
    160,
)
_PER_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
_REQUEST = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000)

COUNTERS = {
    "prompt_tokens": "Prompt tokens processed, those found in the prefix cache included.",
    "generation_tokens": "Tokens generated.",
    "prefix_cache_queries": "Prompt tokens that were looked up in the prefix cache.",
    "prefix_cache_hits": "Prompt tokens that were found in the prefix cache.",
}
HISTOGRAMS = {
    "time_to_first_token_seconds": ("From submission to the first token.", _TTFT),
    "request_time_per_output_token_seconds": ("Mean time of a token after the first, a request.", _PER_TOKEN),
    "e2e_request_latency_seconds": ("From submission to the last token.", _REQUEST),
    "request_queue_time_seconds": ("Time spent waiting for a turn.", _REQUEST),
    "request_prefill_time_seconds": ("Time spent on the prompt.", _REQUEST),
    "request_decode_time_seconds": ("Time spent on the answer after its first token.", _REQUEST),
    "request_prompt_tokens": ("Prompt tokens of a request.", _TOKENS),
    "request_generation_tokens": ("Tokens generated for a request.", _TOKENS),
}


class Speed:
    """Tokens a second over the last few seconds. Written by one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts = [0] * (_SECONDS + 1)
        self._stamps = [-1] * (_SECONDS + 1)  # the second that each count is of

    def add(self, tokens: int) -> None:
        second = int(self._clock())
        place = second % len(self._counts)
        if self._stamps[place] != second:
            self._stamps[place], self._counts[place] = second, 0
        self._counts[place] += tokens

    def per_second(self) -> float:
        now = self._clock()
        oldest = int(now) - _SECONDS
        pairs = zip(self._stamps, self._counts, strict=True)
        return sum(count for stamp, count in pairs if stamp >= oldest) / (_SECONDS + now % 1)


class RequestMetrics:
    """What is counted of requests, whatever the model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counters = {
            name: Counter(PREFIX + name, text, [MODEL], registry=registry) for name, text in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(PREFIX + name, text, [MODEL], buckets=buckets, registry=registry)
            for name, (text, buckets) in HISTOGRAMS.items()
        }
        self._ends = Counter(
            f"{PREFIX}request_success",
            "Requests that came to an end, by how: stop, length, cancelled, error.",
            [MODEL, "finished_reason"],
            registry=registry,
        )
        self.prompt_speed, self.generation_speed = Speed(), Speed()

    def of(self, model: str) -> ModelCounts:
        """The counts of one model, which are there, as zeros, from now on."""
        return ModelCounts(
            {name: counter.labels(model) for name, counter in self._counters.items()},
            {name: histogram.labels(model) for name, histogram in self._histograms.items()},
            partial(self._ends.labels, model),
            self.prompt_speed,
            self.generation_speed,
        )


class ModelCounts:
    """Counts of one model's requests."""

    def __init__(
        self,
        counters: dict[str, Counter],
        histograms: dict[str, Histogram],
        ends: Callable[[str], Counter],
        prompt_speed: Speed,
        generation_speed: Speed,
    ) -> None:
        self._counters, self._histograms, self._ends = counters, histograms, ends
        self._generated = counters["generation_tokens"]
        self._prompt_speed, self._generation_speed = prompt_speed, generation_speed

    def generated(self, tokens: int) -> None:
        self._generated.inc(tokens)
        self._generation_speed.add(tokens)

    def looked_up(self, tokens: int, found: int) -> None:
        self._counters["prefix_cache_queries"].inc(tokens)
        self._counters["prefix_cache_hits"].inc(found)

    def prefilled(self, tokens: int, computed: int) -> None:
        self._counters["prompt_tokens"].inc(tokens)
        self._prompt_speed.add(computed)

    def ended(self, reason: str) -> None:
        self._ends(reason).inc()

    def took(self, timings: Timings, n: int) -> None:
        """The times of a request of `n` choices that was answered."""
        seen = {
            "e2e_request_latency_seconds": timings.ttft_s + timings.decode_s,
            "request_queue_time_seconds": timings.queued_s,
            "request_prefill_time_seconds": timings.prefill_s,
            "request_decode_time_seconds": timings.decode_s,
            "request_prompt_tokens": timings.prompt_tokens,
            "request_generation_tokens": timings.completion_tokens,
        }
        if timings.completion_tokens > 0:
            seen["time_to_first_token_seconds"] = timings.ttft_s
        if timings.completion_tokens > n:
            # The choices are written side by side.
            seen["request_time_per_output_token_seconds"] = timings.decode_s / (
                timings.completion_tokens / n - 1
            )
        for name, value in seen.items():
            self._histograms[name].observe(value)


class MeteredEngine:
    """An engine whose requests are counted. All else that it has is passed through."""

    def __init__(self, engine: ServedEngine, counts: ModelCounts) -> None:
        self._engine, self._counts = engine, counts
        self.context_length = engine.context_length
        self.max_requests = engine.max_requests

    def submit(self, request: Request, deliver: Deliver) -> Cancellable:
        """As the engine's."""
        return self._engine.submit(request, _Tap(request, deliver, self._counts))

    def close(self) -> None:
        """As the engine's."""
        self._engine.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class _Tap:
    """Counts the events of one request, on the engine's thread, and hands them on."""

    __slots__ = ("_counts", "_deliver", "_n", "_processed", "_reason")

    def __init__(self, request: Request, deliver: Deliver, counts: ModelCounts) -> None:
        self._deliver, self._counts, self._n = deliver, counts, request.params.n
        self._processed: int | None = None  # prompt tokens so far
        self._reason = "stop"

    def __call__(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self._chunk(event)
        elif isinstance(event, Progress):
            self._progress(event)
        elif isinstance(event, Finished):
            self._counts.ended(self._reason)
            if self._reason != "cancelled":
                self._counts.took(event.timings, self._n)
        elif isinstance(event, Failed):
            self._counts.ended("error")
        self._deliver(event)

    def _chunk(self, chunk: Chunk) -> None:
        if chunk.token_ids:
            self._counts.generated(len(chunk.token_ids))
        if chunk.finish_reason is not None:
            self._reason = chunk.finish_reason

    def _progress(self, event: Progress) -> None:
        cached = 0
        if self._processed is None:
            self._processed, cached = 0, event.cached
            self._counts.looked_up(event.total, event.cached)
        # A sequence that had to make room comes back with fewer: counters never fall.
        fresh = max(event.processed - self._processed, 0)
        self._processed = max(self._processed, event.processed)
        self._counts.prefilled(fresh, max(fresh - cached, 0))
