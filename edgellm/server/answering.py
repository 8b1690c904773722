"""Requests to the engine, and its events back to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import NamedTuple

from edgellm.engine.request import Chunk, Event, Failed, Finished, Request, Timings, TokenLogprob
from edgellm.server.model import Cancellable, ServedEngine


class Numbered(NamedTuple):
    """An event, and the number of the request that it answers."""

    request: int
    event: Event


class Answering:
    """Requests on their way through the engine. Left by whatever way, what still runs is cancelled.

    Raises what `submit` raises, and then nothing runs.
    """

    def __init__(self, engine: ServedEngine, requests: Sequence[Request]) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Numbered] = asyncio.Queue()
        self._tickets: dict[int, Cancellable] = {}
        try:
            for number, request in enumerate(requests):
                self._tickets[number] = engine.submit(request, partial(self._deliver, number))
        except BaseException:
            self.cancel()
            raise

    def _deliver(self, number: int, event: Event) -> None:
        """On the engine's thread."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, Numbered(number, event))
        except RuntimeError:
            pass  # the event loop has ended, and with it everyone who waits

    def __enter__(self) -> Answering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel every request that has not ended."""
        for ticket in self._tickets.values():
            ticket.cancel()
        self._tickets.clear()

    @property
    def running(self) -> bool:
        """Whether events are still to come."""
        return bool(self._tickets)

    async def next(self, timeout: float | None = None) -> Numbered | None:
        """The next event; None after `timeout` seconds without one. A request's failure is raised."""
        try:
            # Not wait_for: before Python 3.12 it may lose a cancellation that comes together with an event.
            async with asyncio.timeout(timeout):
                numbered = await self._events.get()
        except TimeoutError:
            return None
        if isinstance(numbered.event, Finished | Failed):
            self._tickets.pop(numbered.request, None)
        if isinstance(numbered.event, Failed):
            raise numbered.event.error
        return numbered


@dataclass
class Choice:
    """A whole answer, as it comes together."""

    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, chunk: Chunk) -> None:
        self.text += chunk.text
        self.logprobs += chunk.logprobs
        self.finish_reason = chunk.finish_reason or self.finish_reason


@dataclass
class Answers:
    """Everything that a call's requests gave: the choices of request r are those from r * n."""

    choices: list[Choice]
    timings: list[Timings] = field(default_factory=list)


async def collect(answering: Answering, requests: int, n: int) -> Answers:
    """Wait for all events. Raises the first failure."""
    answers = Answers([Choice() for _ in range(requests * n)])
    while answering.running:
        numbered = await answering.next()
        if numbered is None:
            continue
        if isinstance(numbered.event, Chunk):
            answers.choices[numbered.request * n + numbered.event.index].add(numbered.event)
        elif isinstance(numbered.event, Finished):
            answers.timings.append(numbered.event.timings)
    return answers
