"""One request on its way through the engine: its sequences, its choices, its times, and whom to tell."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from edgellm.engine.generation import Generation
from edgellm.engine.request import Deliver, Failed, Finished, Progress, Request, Timings
from edgellm.engine.scheduler import Scheduler, Share
from edgellm.engine.sequence import Sequence, State
from edgellm.errors import EdgeLLMError

F32 = NDArray[np.float32]


class Job(ABC):
    """Work that runs as one or more sequences. All of it happens on the engine's thread."""

    def __init__(self, prompt: list[int], sequence: Sequence) -> None:
        self.prompt, self.first = prompt, sequence
        self.live: list[Sequence] = [sequence]
        self.ended = False

    def begin(self, scheduler: Scheduler) -> None:
        """Wait for a turn."""
        scheduler.add(self.first)

    @abstractmethod
    def take(self, share: Share, rows: F32, scheduler: Scheduler) -> list[Sequence]:
        """A share of a step has run, with logits [outputs, vocab]: the sequences that came of it."""

    @abstractmethod
    def fail(self, error: EdgeLLMError) -> None:
        """It cannot be answered."""

    @abstractmethod
    def cancelled(self) -> None:
        """Nobody wants the rest."""

    def drop(self, scheduler: Scheduler, keep: bool) -> None:
        """Take all sequences out of the scheduler."""
        for sequence in self.live:
            scheduler.remove(sequence, keep)
        self.live = []
        self.ended = True


class GenerationJob(Job):
    """A prompt, and `n` choices that go on from it."""

    def __init__(
        self, request: Request, sequence: Sequence, generations: list[Generation], deliver: Deliver
    ) -> None:
        super().__init__(request.prompt_token_ids, sequence)
        self.generations = generations
        self._deliver = deliver
        self._submitted = time.perf_counter()
        self._admitted: float | None = None
        self._first_token: float | None = None
        self.cached = 0

    def take(self, share: Share, rows: F32, scheduler: Scheduler) -> list[Sequence]:
        sequence = share.sequence
        if self._first_token is None:
            self._report(sequence)
        if share.outputs == 0:
            return []
        if self._first_token is None:
            return self._fan_out(sequence, rows[-1], scheduler)
        self._go_on(self.generations[sequence.order[1]], sequence, rows[-1], scheduler)
        self._finish_if_done()
        return []

    def admitted(self, at: float) -> None:
        """The step that starts at this time is the first one with a part of it."""
        if self._admitted is None:
            self._admitted = at
            self.cached = self.first.cached

    def fail(self, error: EdgeLLMError) -> None:
        self._deliver(Failed(error))

    def cancelled(self) -> None:
        for generation in self.generations:
            if not generation.finished:
                self._deliver(generation.end("cancelled"))
        self._deliver(Finished(self._timings()))

    def _report(self, sequence: Sequence) -> None:
        self._deliver(Progress(min(sequence.computed, len(self.prompt)), len(self.prompt), self.cached))

    def _fan_out(self, sequence: Sequence, logits: F32, scheduler: Scheduler) -> list[Sequence]:
        """The prompt is done: every choice samples from the same logits, and those that go on get a sequence.

        The others' sequences find the prompt in the cache, its last, partly filled page included.
        """
        self._first_token = time.perf_counter()
        scheduler.offer_tail(sequence)
        others = [
            Sequence((sequence.order[0], g.index), list(self.prompt), sequence.root)
            for g in self.generations[1:]
        ]
        for other in others:
            self.live.append(other)
            scheduler.add(other)
        for generation, each in zip(self.generations, [sequence, *others], strict=True):
            self._go_on(generation, each, logits, scheduler)
        self._finish_if_done()
        return [s for s in others if s.state is not State.FINISHED]

    def _go_on(self, generation: Generation, sequence: Sequence, logits: F32, scheduler: Scheduler) -> None:
        token, chunk = generation.accept(logits, sequence.tokens)
        if generation.finished:
            scheduler.remove(sequence)
            self.live.remove(sequence)
        elif token is not None:
            sequence.tokens.append(token)
        self._deliver(chunk)

    def _finish_if_done(self) -> None:
        if not self.live:
            self.ended = True
            self._deliver(Finished(self._timings()))

    def _timings(self) -> Timings:
        now = time.perf_counter()
        admitted = self._admitted or now
        first = self._first_token or now
        return Timings(
            queued_s=admitted - self._submitted,
            prefill_s=first - admitted,
            decode_s=now - first,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached,
            completion_tokens=sum(g.tokens for g in self.generations),
        )


class ScoreJob(Job):
    """The logits of every position of a text, [n, vocab]."""

    def __init__(self, sequence: Sequence, logits: F32) -> None:
        super().__init__(sequence.tokens, sequence)
        self.result: Future[F32] = Future()
        self._logits = logits

    def take(self, share: Share, rows: F32, scheduler: Scheduler) -> list[Sequence]:
        end = share.sequence.computed
        self._logits[end - share.count : end] = rows
        if share.sequence.remaining == 0:
            self.drop(scheduler, keep=False)
            self.result.set_result(self._logits)
        return []

    def fail(self, error: EdgeLLMError) -> None:
        self.result.set_exception(error)

    def cancelled(self) -> None:
        self.result.cancel()
