"""What a step of the engine does: schedule, run, finish. It knows jobs, and nothing of threads."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from edgellm.backends.base import PAGE_SIZE, Backend
from edgellm.engine.batch import as_batch
from edgellm.engine.config import EngineConfig, Stats
from edgellm.engine.job import F32, GenerationJob, Job
from edgellm.engine.pacing import Pacer
from edgellm.engine.ring import Ring
from edgellm.engine.scheduler import Limits, Scheduler, Share, Step
from edgellm.engine.sequence import Sequence
from edgellm.errors import EdgeLLMError
from edgellm.sampling import Draw

_LOG = logging.getLogger("edgellm")
_ALONE = 4  # times longer steps of prefill while nobody waits for their end: larger steps compute faster


class Core:
    """Jobs over one scheduler and one backend. `ended` is told of every job that has its last event."""

    def __init__(self, backend: Backend, config: EngineConfig, ended: Callable[[Job], None]) -> None:
        sizes = backend.config
        limits = Limits(config.max_sequences, sizes.max_tokens, sizes.max_outputs)
        self.ring = Ring(sizes.num_pages, PAGE_SIZE)
        self._backend, self._ended = backend, ended
        self._scheduler = Scheduler(self.ring, limits, reuse=not backend.graph.states)
        self._pacer = Pacer(config.step_seconds, config.min_chunk, sizes.max_tokens)
        self._jobs: dict[Sequence, Job] = {}
        self._counts = dict.fromkeys(("requests", "failed", "prompt", "cached", "generated", "steps"), 0)
        self._stopping = False
        self._stretch = 1

    # -- a step ----------------------------------------------------------------------------------------

    def schedule(self) -> Step:
        """Who runs now, and with how many tokens."""
        self._stretch = _ALONE if self._scheduler.alone else 1
        step = self._scheduler.schedule(self._pacer.chunk * self._stretch)
        now = time.perf_counter()
        for job in self._jobs_of(step):
            job.admitted(now)
        return step

    def run(self, step: Step) -> F32 | None:
        """The logits of a step, f32 [outputs, vocab]; None where the backend failed for all of it."""
        began = time.perf_counter()
        try:
            for source, target in step.copies:
                self._backend.copy_page(source, target)
            logits = self._backend.execute(as_batch(step, self._draw))
        except Exception as error:
            if not self._stopping:
                _LOG.exception("a step with %d sequences failed", len(step.shares))
            for job in self._jobs_of(step):
                self.fail(job, as_ours(error))
            return None
        seconds = time.perf_counter() - began
        self._pacer.observe(step.prefill_tokens // self._stretch, seconds / self._stretch)
        self._counts["steps"] += 1
        return None if self._stopping else logits

    def finish(self, step: Step, logits: F32 | None) -> None:
        """Hand every job its rows; what goes wrong with one is no other's trouble."""
        if logits is None:
            return
        self._scheduler.advance(step)
        drawn = self._backend.drawn()
        row = 0
        for share in step.shares:
            rows = logits[row : row + share.outputs]
            row += share.outputs
            job = self._jobs.get(share.sequence)
            if job is None:
                continue
            token = drawn[row - 1] if drawn and share.outputs else -1
            try:
                for sequence in job.take(share, rows, token, self._scheduler):
                    self._jobs[sequence] = job
            except Exception as error:
                self.fail(job, as_ours(error))
            else:
                if job.ended:
                    self._forget(job)

    def _draw(self, share: Share) -> Draw | None:
        job = self._jobs.get(share.sequence)
        return job.draw(share) if job is not None else None

    # -- jobs ------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._counts["requests"] += 1
        self._jobs[job.first] = job
        self._scheduler.add(job.first)

    def cancel(self, job: Job) -> None:
        """End a job that nobody wants any more, if it has not ended."""
        if not job.ended:
            job.drop(self._scheduler, keep=True)
            _quietly(job.cancelled)
            self._forget(job)

    def fail(self, job: Job, error: EdgeLLMError) -> None:
        """End a job that cannot be answered."""
        job.drop(self._scheduler, keep=False)
        self._counts["failed"] += 1
        _quietly(partial(job.fail, error))
        self._forget(job)

    def fail_all(self, error: EdgeLLMError) -> None:
        """End all that there is."""
        for job in _once(list(self._jobs.values())):
            self.fail(job, error)

    def stop(self) -> None:
        """What a running step gives is not wanted any more."""
        self._stopping = True

    def _forget(self, job: Job) -> None:
        for sequence in [s for s, j in self._jobs.items() if j is job]:
            del self._jobs[sequence]
        if isinstance(job, GenerationJob):
            self._counts["prompt"] += len(job.prompt)
            self._counts["cached"] += job.cached
            self._counts["generated"] += sum(g.tokens for g in job.generations)
        self._ended(job)

    def _jobs_of(self, step: Step) -> list[Job]:
        return _once([self._jobs[s.sequence] for s in step.shares if s.sequence in self._jobs])

    def stats(self, context_length: int) -> Stats:
        """Counts, as they stand."""
        counts = self._counts
        return Stats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            pages_total=self.ring.num_pages,
            pages_used=self.ring.used,
            pages_cached=self.ring.cached,
            context_length=context_length,
            requests=counts["requests"],
            failed=counts["failed"],
            prompt_tokens=counts["prompt"],
            cached_tokens=counts["cached"],
            generated_tokens=counts["generated"],
            steps=counts["steps"],
            preemptions=self._scheduler.preemptions,
            prefill_chunk=self._pacer.chunk,
        )


def as_ours(error: Exception) -> EdgeLLMError:
    """The error as one of ours, with its cause."""
    if isinstance(error, EdgeLLMError):
        return error
    ours = EdgeLLMError(f"the model failed to run: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours


def _once(jobs: list[Job]) -> list[Job]:
    return list(dict.fromkeys(jobs))


def _quietly(tell: Callable[[], Any]) -> None:
    """Tell somebody who may not be able to listen any more."""
    try:
        tell()
    except Exception:
        _LOG.exception("a request's events could not be delivered")
