"""What `LLM` gives back: whole answers, and streams of them."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from edgellm.engine import (
    Chunk,
    Engine,
    Event,
    Failed,
    Finished,
    FinishReason,
    Request,
    Timings,
    TokenLogprob,
)

_WAIT_SECONDS = 0.1  # between looks at whether Ctrl-C was pressed
T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """One of the answers to a prompt. `logprobs` has an entry for each token where they were asked for."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason | None
    logprobs: list[TokenLogprob] | None


@dataclass(frozen=True)
class Completion:
    """The answer to a prompt: the first choice's fields, and all `choices`."""

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: FinishReason | None
    logprobs: list[TokenLogprob] | None
    timings: Timings
    choices: list[Choice] = field(repr=False)


class Gatherer:
    """Puts the chunks of one request together."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._chunks: list[list[Chunk]] = [[] for _ in range(request.params.n)]

    def add(self, chunk: Chunk) -> None:
        """Another chunk, of any choice."""
        self._chunks[chunk.index].append(chunk)

    def completion(self, timings: Timings) -> Completion:
        """All of it."""
        choices = [self._choice(i, chunks) for i, chunks in enumerate(self._chunks)]
        first, prompt = choices[0], list(self._request.prompt_token_ids)
        return Completion(
            first.text, first.token_ids, prompt, first.finish_reason, first.logprobs, timings, choices
        )

    def _choice(self, index: int, chunks: list[Chunk]) -> Choice:
        wanted = self._request.params.logprobs is not None
        return Choice(
            index=index,
            text="".join(c.text for c in chunks),
            token_ids=[t for c in chunks for t in c.token_ids],
            finish_reason=chunks[-1].finish_reason if chunks else None,
            logprobs=[x for c in chunks for x in c.logprobs] if wanted else None,
        )


class Stream:
    """The chunks of one request as they come; an iterator, and a context manager.

    Leaving it early, by `close` or by Ctrl-C, cancels the request. `timings` are there after the last chunk.
    `owner` of the engine lives as long as the stream.
    """

    def __init__(self, engine: Engine, request: Request, owner: object = None) -> None:
        self._owner = owner
        self.timings: Timings | None = None
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._over = False
        self._ticket = engine.submit(request, self._events.put)

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        while not self._over:
            event = self._next_event()
            if isinstance(event, Chunk):
                return event
            if isinstance(event, Failed):
                self._over = True
                raise event.error
            if isinstance(event, Finished):
                self._over, self.timings = True, event.timings
        raise StopIteration

    def _next_event(self) -> Event:
        try:
            return wait_for(self._events)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Cancel what is not finished; there are no more chunks."""
        if not self._over:
            self._over = True
            self._ticket.cancel()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_ticket"):
            self.close()


def wait_for(events: queue.SimpleQueue[T]) -> T:
    """The next event. Ctrl-C is heard while there is none."""
    while True:
        try:
            return events.get(timeout=_WAIT_SECONDS)
        except queue.Empty:
            continue
