"""The engine: a thread that owns the backend and runs everybody's requests, step by step."""

from __future__ import annotations

import itertools
import logging
import os
import queue
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Protocol, TypeVar

import numpy as np

from edgellm.backends.base import PAGE_SIZE, Backend
from edgellm.engine.check import check_limits, check_prompt, check_request
from edgellm.engine.config import EngineConfig, Stats
from edgellm.engine.core import Core, as_ours
from edgellm.engine.embed import embed
from edgellm.engine.generation import Decoder, Generation, NoText
from edgellm.engine.job import F32, GenerationJob, Job, ScoreJob
from edgellm.engine.request import Deliver, Request
from edgellm.engine.sequence import Sequence as TokenSequence
from edgellm.errors import EngineClosedError, QueueFullError
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
        room = backend.config.num_pages * PAGE_SIZE
        self.max_requests = self.config.max_sequences + self.config.max_queue
        self.context_length = min(self.config.context_length or backend.graph.context_length or room, room)
        sizes = [backend.graph.vocab_size, *([tokenizer.vocab_size] if tokenizer else [])]
        self.vocab_size = min(sizes)
        self._in_flight: set[Job] = set()  # requests that run or wait
        # The core holds nothing of the engine: without a cycle all goes as soon as nobody wants it.
        self._core = Core(backend, self.config, self._in_flight.discard)
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._process = os.getpid()
        self._arrivals = itertools.count()
        self._thread = threading.Thread(target=self._main, name="edgellm-engine", daemon=True)
        if start:
            self._thread.start()

    # -- on the engine's thread ------------------------------------------------------------------------

    def step(self) -> bool:
        """One step: schedule, run, finish. False when there was nothing to run."""
        self._do_commands()
        step = self._core.schedule()
        if not step.shares:
            return False
        logits = self._core.run(step)
        self._core.finish(step, logits)
        return True

    def _main(self) -> None:
        while not self._closed:
            try:
                if not self.step() and not self._closed:  # closing wakes it once, perhaps within the step
                    self._inbox.get()()
            except Exception as error:
                _LOG.exception("the engine failed every request that it had")
                self._core.fail_all(as_ours(error))
        self._shut_down()

    def _do_commands(self) -> None:
        while True:
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                return
            command()

    def _shut_down(self) -> None:
        self._do_commands()
        self._core.fail_all(EngineClosedError("the engine was closed before the request was finished"))
        self.backend.close()

    # -- asked from any thread -------------------------------------------------------------------------

    def check(self, request: Request) -> None:
        """Raise what `submit` would raise for what the request says: UsageError or ContextLengthError."""
        check_request(request, self.backend.graph, self.vocab_size, self.context_length)

    def submit(self, request: Request, deliver: Deliver) -> Ticket:
        """Queue a request; its events go to `deliver`, on the engine's thread.

        Raises UsageError, ContextLengthError, QueueFullError or EngineClosedError, and then delivers nothing.
        """
        self.check(request)
        job = self._generation_job(request, deliver)
        limit = self.max_requests
        with self._lock:
            self._check_open()
            if len(self._in_flight) >= limit:
                raise QueueFullError(
                    f"{len(self._in_flight)} requests run or wait, and at most {limit} may: try again later"
                )
            self._in_flight.add(job)
            self._inbox.put(partial(self._core.begin, job))
        return Ticket(lambda: self._inbox.put(partial(self._core.cancel, job)))

    def score(self, tokens: Sequence[int]) -> F32:
        """The logits of every position, f32 [n, vocab]. Neither uses the prefix cache nor adds to it.

        Raises UsageError or ContextLengthError for the tokens, and whatever fails the run.
        """
        graph = self.backend.graph
        ids = check_prompt(tokens, graph, graph.vocab_size, self.context_length)
        logits = np.empty((len(ids), graph.vocab_size), np.float32)
        job = ScoreJob(TokenSequence((next(self._arrivals), 0), ids, all_rows=True), logits)
        self._send(partial(self._core.begin, job))
        return self._wait(job.result, lambda: self._inbox.put(partial(self._core.cancel, job)))

    def embed(self, texts: Sequence[Sequence[int]]) -> F32:
        """One vector a text, f32 [n, dim], for a model that pools.

        Raises UsageError where the model does not, ContextLengthError for a text longer than a step,
        EngineClosedError where the engine is closed meanwhile.
        """
        result: Future[F32] = Future()
        unwanted = threading.Event()

        def stopped() -> bool:
            return self._closed or unwanted.is_set()

        self._send(partial(_settle, result, lambda: embed(self.backend, self._core.ring, texts, stopped)))
        return self._wait(result, unwanted.set)

    def stats(self) -> Stats:
        """Counts since the start, and what is held now."""
        return self._core.stats(self.context_length)

    def close(self) -> None:
        """Stop within half a second: the unfinished fails with EngineClosedError, the backend is closed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        if os.getpid() != self._process:
            return  # what a fork has of the threads and the backend is a dead copy
        self._core.stop()
        self.backend.cancel()
        if not self._thread.is_alive():
            self._shut_down()
            return
        self._inbox.put(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join(_JOIN_SECONDS)

    def close_soon(self) -> None:
        """Let the engine's thread close it, after the step that runs.

        It waits for nothing and takes no lock, so that a garbage collection may call it within anything.
        """
        self._inbox.put(self.close)

    def _check_open(self) -> None:
        if os.getpid() != self._process:
            raise EngineClosedError("the model was loaded before this process was forked: load it again here")
        if self._closed:
            raise EngineClosedError("the engine is closed; load the model again")

    def _send(self, command: Callable[[], None]) -> None:
        with self._lock:
            self._check_open()
            self._inbox.put(command)

    def _wait(self, result: Future[R], cancel: Callable[[], None]) -> R:
        """The result, looking up now and then so that Ctrl-C is heard at once; that cancels the work."""
        try:
            while True:
                driven = self._thread.is_alive() or self._closed
                if not driven:
                    self.step()
                try:
                    return result.result(_WAIT_SECONDS if driven else 0)
                except TimeoutError:
                    continue
        except KeyboardInterrupt:
            cancel()
            raise

    def _generation_job(self, request: Request, deliver: Deliver) -> GenerationJob:
        params, prompt = request.params, [int(t) for t in request.prompt_token_ids]
        seed = random_seed() if params.seed is None else params.seed
        room = max(self.context_length - len(prompt), 1)
        limit = room if params.max_tokens is None else min(room, params.max_tokens)
        ends = self.tokenizer.end_ids if self.tokenizer else ()
        generations = [
            Generation(i, params, seed, self._decoder(request), ends, limit) for i in range(params.n)
        ]
        first = TokenSequence((next(self._arrivals), 0), prompt, self.config.salt)
        return GenerationJob(first, generations, deliver, self.vocab_size)

    def _decoder(self, request: Request) -> Decoder:
        if self.tokenizer is None:
            return NoText()
        return IncrementalDecoder(self.tokenizer, request.skip_special, after=request.prompt_token_ids[-1])


def _settle(result: Future[F32], work: Callable[[], F32]) -> None:
    try:
        result.set_result(work())
    except Exception as error:
        result.set_exception(as_ours(error))
