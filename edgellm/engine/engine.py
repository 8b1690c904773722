"""The engine: a thread that owns the backend and runs everybody's requests, step by step."""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import PAGE_SIZE, Backend, Batch, SequenceRows
from edgellm.engine.check import check_limits, check_prompt, check_request
from edgellm.engine.config import EngineConfig, Stats
from edgellm.engine.embed import embed
from edgellm.engine.generation import Decoder, Generation, NoText
from edgellm.engine.job import F32, GenerationJob, Job, ScoreJob
from edgellm.engine.pacing import Pacer
from edgellm.engine.request import Deliver, Request
from edgellm.engine.ring import Ring
from edgellm.engine.scheduler import Limits, Scheduler, Step
from edgellm.engine.sequence import Sequence as TokenSequence
from edgellm.errors import EdgeLLMError, EngineClosedError, QueueFullError, UsageError
from edgellm.sampling import random_seed
from edgellm.tokenizers.decoder import IncrementalDecoder

_LOG = logging.getLogger("edgellm")
_JOIN_SECONDS = 0.5
_WAIT_SECONDS = 0.1  # between looks at whether Ctrl-C was pressed
R = TypeVar("R")


class EngineTokenizer(Protocol):
    """What the engine needs of a tokenizer."""

    add_space_prefix: bool

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_ids(self) -> Collection[int]: ...

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes: ...

    def is_special(self, token_id: int) -> bool: ...


class Ticket:
    """A submitted request."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel

    def cancel(self) -> None:
        """Stop soon: what is unfinished ends with finish_reason "cancelled". From any thread, at any time."""
        self._cancel()


class Engine:
    """Runs requests over one backend, which it owns from now on, and closes.

    `tokenizer` gives the text of tokens and the ids that end a generation; without one chunks have no text.
    With `start` False there is no thread: the caller drives it by `step()`.
    Raises UsageError where the config does not fit the backend.
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: EngineTokenizer | None = None,
        config: EngineConfig | None = None,
        start: bool = True,
    ) -> None:
        self.config = config or EngineConfig()
        check_limits(backend, self.config)
        self.backend, self.tokenizer = backend, tokenizer
        sizes, graph = backend.config, backend.graph
        ring = Ring(sizes.num_pages, PAGE_SIZE)
        self.context_length = min(
            self.config.context_length or graph.context_length or sizes.num_pages * PAGE_SIZE,
            sizes.num_pages * PAGE_SIZE,
        )
        self.vocab_size = min(graph.vocab_size, tokenizer.vocab_size) if tokenizer else graph.vocab_size
        limits = Limits(self.config.max_sequences, sizes.max_tokens, sizes.max_outputs)
        self._scheduler = Scheduler(ring, limits, reuse=not graph.states)
        self._pacer = Pacer(self.config.step_seconds, self.config.min_chunk, sizes.max_tokens)
        self._jobs: dict[TokenSequence, Job] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._in_flight = 0
        self._arrivals = itertools.count()
        self._counts = dict.fromkeys(("requests", "failed", "prompt", "cached", "generated", "steps"), 0)
        self._thread = threading.Thread(target=self._main, name="edgellm-engine", daemon=True)
        if start:
            self._thread.start()

    # -- asked from any thread --------------------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raise what `submit` would raise for what the request says: UsageError or ContextLengthError."""
        check_request(request, self.backend.graph, self.vocab_size, self.context_length)

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Queue a request; its events go to `deliver`, on the engine's thread.

        Raises UsageError, ContextLengthError, QueueFullError or EngineClosedError, and then delivers nothing.
        """
        self.check(request)
        job = self._generation_job(request, deliver)
        limit = self.config.max_sequences + self.config.max_queue
        with self._lock:
            self._check_open()
            if self._in_flight >= limit:
                raise QueueFullError(
                    f"{self._in_flight} requests are running or waiting, and at most {limit} may: try again later"
                )
            self._in_flight += 1
            self._inbox.put(partial(self._begin, job))
        return Ticket(lambda: self._inbox.put(partial(self._cancel, job)))

    def score(self, tokens: Sequence[int]) -> F32:
        """The logits of every position, f32 [n, vocab]. Neither uses the prefix cache nor adds to it.

        Raises UsageError or ContextLengthError for the tokens, and whatever fails the run.
        """
        ids = check_prompt(tokens, self.backend.graph, self.backend.graph.vocab_size, self.context_length)
        logits = np.empty((len(ids), self.backend.graph.vocab_size), np.float32)
        job = ScoreJob(TokenSequence((next(self._arrivals), 0), ids, all_rows=True), logits)
        self._send(partial(self._begin, job))
        return self._wait(job.result, partial(self._cancel, job))

    def embed(self, texts: Sequence[Sequence[int]]) -> F32:
        """One vector a text, f32 [n, dim], for a model that pools. UsageError where the model or a text does not fit."""
        result: Future[F32] = Future()
        self._send(partial(_settle, result, lambda: embed(self.backend, self._scheduler.ring, texts)))
        return self._wait(result, lambda: None)

    def stats(self) -> Stats:
        """Counts, as they stand."""
        ring, counts = self._scheduler.ring, self._counts
        return Stats(
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting),
            pages_total=ring.num_pages,
            pages_used=ring.used,
            pages_cached=ring.cached,
            context_length=self.context_length,
            requests=counts["requests"],
            failed=counts["failed"],
            prompt_tokens=counts["prompt"],
            cached_tokens=counts["cached"],
            generated_tokens=counts["generated"],
            steps=counts["steps"],
            preemptions=self._scheduler.preemptions,
            prefill_chunk=self._pacer.chunk,
        )

    def close(self) -> None:
        """Stop, within half a second: unfinished requests fail with EngineClosedError, the backend is closed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.backend.cancel()
        if not self._thread.is_alive():
            self._shut_down()
            return
        self._inbox.put(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosedError("the engine is closed; load the model again")

    def _send(self, command: Callable[[], None]) -> None:
        with self._lock:
            self._check_open()
            self._inbox.put(command)

    def _wait(self, result: Future[R], cancel: Callable[[], None]) -> R:
        """The result, looking up now and then so that Ctrl-C is heard at once; it cancels the work."""
        try:
            while True:
                if not self._thread.is_alive() and not self._closed:
                    self.step()
                try:
                    return result.result(_WAIT_SECONDS)
                except TimeoutError:
                    continue
        except KeyboardInterrupt:
            self._inbox.put(cancel)
            raise

    def _generation_job(self, request: Request, deliver: Deliver) -> GenerationJob:
        params, prompt = request.params, request.prompt_token_ids
        seed = random_seed() if params.seed is None else params.seed
        room = max(self.context_length - len(prompt), 1)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        ends = self.tokenizer.end_ids if self.tokenizer else ()
        generations = [
            Generation(i, params, seed, self._decoder(request), ends, limit) for i in range(params.n)
        ]
        first = TokenSequence((next(self._arrivals), 0), list(prompt), self.config.salt)
        return GenerationJob(request, first, generations, deliver)

    def _decoder(self, request: Request) -> Decoder:
        if self.tokenizer is None:
            return NoText()
        return IncrementalDecoder(self.tokenizer, request.skip_special, after=request.prompt_token_ids[-1])

    # -- on the engine's thread -------------------------------------------------------------------------------------

    def step(self) -> bool:
        """One step: schedule, run, finish. False when there was nothing to run."""
        self._do_commands()
        step = self._scheduler.schedule(self._pacer.chunk)
        if not step.shares:
            return False
        logits = self._run(step)
        if logits is not None:
            self._finish(step, logits)
        return True

    def _main(self) -> None:
        while not self._closed:
            try:
                if not self.step():
                    self._inbox.get()()
            except Exception as error:
                _LOG.exception("the engine failed every request that it had")
                self._fail_all(_as_ours(error))
        self._shut_down()

    def _do_commands(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            command()

    def _run(self, step: Step) -> F32 | None:
        """The logits of a step [outputs, vocab]; None where the backend failed, and with it all who took part."""
        self._note_admissions(step)
        began = time.perf_counter()
        try:
            for source, target in step.copies:
                self.backend.copy_page(source, target)
            logits = self.backend.execute(_batch(step))
        except Exception as error:
            if not self._closed:
                _LOG.exception("a step failed, with %d sequences", len(step.shares))
            for job in {id(j): j for j in self._jobs_of(step)}.values():
                self._fail(job, _as_ours(error))
            return None
        self._pacer.observe(step.prefill_tokens, time.perf_counter() - began)
        self._counts["steps"] += 1
        return None if self._closed else logits

    def _finish(self, step: Step, logits: F32) -> None:
        """Hand every job its rows; what goes wrong with one is no other's trouble."""
        self._scheduler.advance(step)
        row = 0
        for share in step.shares:
            rows = logits[row : row + share.outputs]
            row += share.outputs
            job = self._jobs.get(share.sequence)
            if job is None or job.ended:
                continue
            try:
                for sequence in job.take(share, rows, self._scheduler):
                    self._jobs[sequence] = job
            except Exception as error:
                self._fail(job, _as_ours(error))
            if job.ended:
                self._forget(job)

    def _note_admissions(self, step: Step) -> None:
        now = time.perf_counter()
        for job in self._jobs_of(step):
            if isinstance(job, GenerationJob):
                job.admitted(now)

    def _jobs_of(self, step: Step) -> list[Job]:
        return [self._jobs[s.sequence] for s in step.shares if s.sequence in self._jobs]

    def _begin(self, job: Job) -> None:
        self._counts["requests"] += 1
        self._jobs[job.first] = job
        job.begin(self._scheduler)

    def _cancel(self, job: Job) -> None:
        if not job.ended:
            job.drop(self._scheduler, keep=True)
            _quietly(job.cancelled)
            self._forget(job)

    def _fail(self, job: Job, error: EdgeLLMError) -> None:
        job.drop(self._scheduler, keep=False)
        self._counts["failed"] += 1
        _quietly(partial(job.fail, error))
        self._forget(job)

    def _forget(self, job: Job) -> None:
        """A job has ended: count it, and let the next one in."""
        known = [s for s, j in self._jobs.items() if j is job]
        for sequence in known:
            del self._jobs[sequence]
        if known and isinstance(job, GenerationJob):
            self._counts["prompt"] += len(job.prompt)
            self._counts["cached"] += job.cached
            self._counts["generated"] += sum(g.tokens for g in job.generations)
            with self._lock:
                self._in_flight -= 1

    def _fail_all(self, error: EdgeLLMError) -> None:
        for job in list({id(j): j for j in self._jobs.values()}.values()):
            self._fail(job, error)

    def _shut_down(self) -> None:
        self._do_commands()
        self._fail_all(EngineClosedError("the engine was closed before the request was finished"))
        self.backend.close()


def _batch(step: Step) -> Batch:
    """The step as the backend wants it: token ids [T], sequences in row order, output rows [O]."""
    tokens: list[int] = []
    rows: list[SequenceRows] = []
    outputs: list[int] = []
    for share in step.shares:
        s, start = share.sequence, len(tokens)
        tokens += s.tokens[s.computed : s.computed + share.count]
        rows.append(SequenceRows(start, share.count, s.computed, tuple(s.pages), s.slot, s.slot))
        outputs += range(len(tokens) - share.outputs, len(tokens))
    return Batch(tokens, rows, outputs)


def _as_ours(error: Exception) -> EdgeLLMError:
    """The error as one of ours, with its cause."""
    if isinstance(error, EdgeLLMError):
        return error
    ours = EdgeLLMError(f"the model failed to run: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours


def _quietly(tell: Callable[[], Any]) -> None:
    """Tell somebody who may not be able to listen any more."""
    try:
        tell()
    except Exception:
        _LOG.exception("a request's events could not be delivered")


def _settle(result: Future[NDArray[np.float32]], work: Callable[[], F32]) -> None:
    try:
        result.set_result(work())
    except Exception as error:
        result.set_exception(_as_ours(error))
