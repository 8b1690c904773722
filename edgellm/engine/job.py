"""One request on its way through the engine: its sequences, its choices, its times, and whom to tell."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from edgellm.engine.generation import Generation
from edgellm.engine.request import Deliver, Failed, Finished, Progress, Timings
from edgellm.engine.scheduler import Scheduler, Share
from edgellm.engine.sequence import Sequence, State
from edgellm.errors import EdgeLLMError
from edgellm.sampling import Draw

F32 = NDArray[np.float32]


class Job(ABC):
    """Work that runs as one or more sequences. All of it happens on the engine's thread."""

    def __init__(self, sequence: Sequence) -> None:
        self.prompt = list(sequence.tokens)
        self.first = sequence
        self.live: list[Sequence] = [sequence]
        self.ended = False

    @abstractmethod
    def admitted(self, at: float) -> None:
        """A step that has a part of it starts at this time."""

    def draw(self, share: Share) -> Draw | None:
        """How the backend may choose the token after a share's last row, if that is all that is wanted."""
        return None

    @abstractmethod
    def take(self, share: Share, rows: F32, token: int, scheduler: Scheduler) -> list[Sequence]:
        """A share of a step has run, with logits [outputs, vocab], and `token` was drawn from the last of
        them (-1: none was): the sequences that came of it.
        """

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
    """A prompt, and the choices that go on from it. Only the first `vocab_size` tokens may be chosen."""

    def __init__(
        self, sequence: Sequence, generations: list[Generation], deliver: Deliver, vocab_size: int
    ) -> None:
        super().__init__(sequence)
        self.generations = generations
        self.cached = 0
        self._deliver, self._vocab_size = deliver, vocab_size
        self._submitted = time.perf_counter()
        self._admitted: float | None = None
        self._first_token: float | None = None

    def admitted(self, at: float) -> None:
        if self._admitted is None:
            self._admitted = at
            self.cached = self.first.cached

    def draw(self, share: Share) -> Draw | None:
        several = self._first_token is None and len(self.generations) > 1
        generation = self.generations[share.sequence.order[1]]
        return None if several else generation.draw(share.sequence.tokens, self._vocab_size)

    def take(self, share: Share, rows: F32, token: int, scheduler: Scheduler) -> list[Sequence]:
        sequence = share.sequence
        if self._first_token is None:
            self._deliver(Progress(sequence.computed, len(self.prompt), self.cached))
        if share.outputs == 0:
            return []
        logits = rows[-1, : self._vocab_size]
        if self._first_token is None:
            return self._fan_out(sequence, logits, token, scheduler)
        self._go_on(self.generations[sequence.order[1]], sequence, logits, token, scheduler)
        self._finish_if_done()
        return []

    def fail(self, error: EdgeLLMError) -> None:
        self._deliver(Failed(error))

    def cancelled(self) -> None:
        for generation in self.generations:
            if not generation.finished:
                self._deliver(generation.end("cancelled"))
        self._deliver(Finished(self._timings()))

    def _fan_out(self, sequence: Sequence, logits: F32, token: int, scheduler: Scheduler) -> list[Sequence]:
        """The prompt is done: every choice samples from the same logits, and goes on by itself.

        The others' sequences find the prompt in the cache, its last, partly filled page included.
        """
        self._first_token = time.perf_counter()
        scheduler.offer_tail(sequence)
        others = [self._another(sequence, g.index) for g in self.generations[1:]]
        for other in others:
            scheduler.add(other)
        self.live += others
        for generation, each in zip(self.generations, [sequence, *others], strict=True):
            self._go_on(generation, each, logits, token, scheduler)
        self._finish_if_done()
        return [s for s in others if s.state is not State.FINISHED]

    def _another(self, sequence: Sequence, index: int) -> Sequence:
        return Sequence((sequence.order[0], index), list(self.prompt), sequence.root)

    def _go_on(
        self, generation: Generation, sequence: Sequence, logits: F32, drawn: int, scheduler: Scheduler
    ) -> None:
        token, chunk = generation.accept(logits, sequence.tokens, drawn)
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
    """The logits of every position of a text, written into `logits` [n, vocab]."""

    def __init__(self, sequence: Sequence, logits: F32) -> None:
        super().__init__(sequence)
        self.result: Future[F32] = Future()
        self._logits = logits

    def admitted(self, at: float) -> None:
        """Nobody asks for its times."""

    def take(self, share: Share, rows: F32, token: int, scheduler: Scheduler) -> list[Sequence]:
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
