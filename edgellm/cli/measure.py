"""Timing a backend: prompts of synthetic tokens, and greedy generation, without engine, sampler or text."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from edgellm import backends, hub, models
from edgellm.backends.base import PAGE_SIZE, Backend, BackendConfig, Batch, LoadProgress, SequenceRows
from edgellm.backends.profile import OpTime
from edgellm.errors import UsageError
from edgellm.gguf import open_gguf
from edgellm.graph import Graph

STEP_TOKENS = 256  # of the largest step, as the engine has it
_LCG = 48271  # spreads the synthetic ids over the vocabulary


@dataclass(frozen=True)
class Workload:
    """What to measure: 0 tokens leaves a test out. With `profile`, one more run of each tells op from op."""

    prompt_tokens: int
    gen_tokens: int
    batches: list[int]
    repeat: int
    profile: bool = False


@dataclass(frozen=True)
class Result:
    """One test's speed, over all sequences of the batch; samples in tokens per second."""

    test: str
    threads: int
    batch: int
    tokens_per_second: float
    gigabytes_per_second: float
    samples: list[float]
    profile: list[OpTime] | None = None

    def as_json(self) -> dict[str, Any]:
        row = asdict(self) | {"profile": [_op_as_json(op) for op in self.profile or ()]}
        if self.profile is None:
            del row["profile"]
        return row


def _op_as_json(op: OpTime) -> dict[str, Any]:
    return asdict(op) | {
        "gigabytes_per_second": op.gigabytes_per_second,
        "gigaoperations_per_second": op.gigaoperations_per_second,
    }


@dataclass(frozen=True)
class _Timed:
    """A run of a test: seconds, tokens, and steps, each of which reads the weights."""

    seconds: float
    tokens: int
    steps: int


def measure(name: str, threads: int | None, work: Workload, progress: LoadProgress) -> Iterator[Result]:
    """Load a model with so many threads, and measure it. Raises what loading does, and `check_sizes`."""
    path = hub.resolve(name, lambda what, done, total: progress(what, done, total or 0))
    with open_gguf(path) as file:
        graph = models.build(file)
        check_sizes(graph, work)
        weight_bytes = sum(file.tensors[w].nbytes for w in graph.weights_of_a_step())
        config = _config(graph, work, threads)
        with closing(backends.find("auto")(graph, file, config, progress)) as backend:
            count = threads or _default_threads()
            for batch in work.batches:
                bench = Bench(backend, batch)
                for test, work_once in _tests(bench, work):
                    run = partial(_interruptible, bench, work_once)
                    run()  # warms caches, and the memory that is touched for the first time
                    runs = [run() for _ in range(work.repeat)]
                    ops = _profile(backend, run) if work.profile else None
                    yield _result(test, count, batch, runs, weight_bytes, ops)


def check_sizes(graph: Graph, work: Workload) -> None:
    """UsageError if the model cannot generate, or its context is too short."""
    if not graph.causal:
        raise UsageError("this model makes embeddings; bench measures models that generate", "model")
    for name, tokens in (("prompt_tokens", work.prompt_tokens), ("gen_tokens", work.gen_tokens)):
        if tokens > graph.context_length:
            raise UsageError(f"{name} is {tokens}, but the model's context is {graph.context_length}", name)


def _config(graph: Graph, work: Workload, threads: int | None) -> BackendConfig:
    largest = max(work.batches)
    tokens = max(work.prompt_tokens, work.gen_tokens, 1)
    return BackendConfig(
        num_pages=largest * -(-tokens // PAGE_SIZE),
        num_slots=largest,
        max_tokens=max(min(STEP_TOKENS, graph.context_length), largest),
        max_outputs=largest,
        max_sequences=largest,
        threads=threads,
    )


def _default_threads() -> int:
    from edgellm.backends.cpu.threads import default_threads

    return default_threads()


def _tests(bench: Bench, work: Workload) -> Iterator[tuple[str, Callable[[], _Timed]]]:
    if work.prompt_tokens:
        yield f"pp{work.prompt_tokens}", lambda: bench.prompt(work.prompt_tokens)
    if work.gen_tokens:
        yield f"tg{work.gen_tokens}", lambda: bench.generate(work.gen_tokens)


def _interruptible(bench: Bench, run: Callable[[], _Timed]) -> _Timed:
    """Run on another thread: Ctrl-C reaches the main one between two lines of Python, never in a step."""
    with ThreadPoolExecutor(1) as other:
        running: list[Future[_Timed]] = []
        try:
            running.append(other.submit(run))
            return running[0].result()
        except KeyboardInterrupt:
            bench.stop()
            while not all(future.done() for future in running):
                time.sleep(0.01)
                bench.stop()
            raise


def _profile(backend: Backend, run: Callable[[], _Timed]) -> list[OpTime]:
    profile = backend.profile()
    run()
    return profile.rows()


def _result(
    test: str, threads: int, batch: int, runs: list[_Timed], weight_bytes: int, ops: list[OpTime] | None
) -> Result:
    return Result(
        test=test,
        threads=threads,
        batch=batch,
        tokens_per_second=statistics.median(r.tokens / r.seconds for r in runs),
        gigabytes_per_second=statistics.median(weight_bytes * r.steps / r.seconds / 1e9 for r in runs),
        samples=[r.tokens / r.seconds for r in runs],
        profile=ops,
    )


class Bench:
    """Runs `batch` sequences over a backend, each in pages of its own."""

    def __init__(self, backend: Backend, batch: int) -> None:
        self._backend, self._batch, self._stopped = backend, batch, False
        self._vocab = backend.graph.vocab_size
        each = backend.config.num_pages // batch
        self._pages = [range(i * each, (i + 1) * each) for i in range(batch)]

    def stop(self) -> None:
        """End what runs now, on another thread, soon; its figures mean nothing then."""
        self._stopped = True
        self._backend.cancel()

    def prompt(self, tokens: int) -> _Timed:
        """Process a prompt of so many tokens in each sequence, one sequence after the other."""
        ids = [i * _LCG % self._vocab for i in range(1, tokens + 1)]
        most = self._backend.config.max_tokens
        began, steps = time.perf_counter(), 0
        for sequence in range(self._batch):
            for start in range(0, tokens, most):
                if self._stopped:
                    break
                chunk = ids[start : start + most]
                rows = self._rows(sequence, 0, len(chunk), start)
                self._backend.execute(Batch(chunk, [rows], [len(chunk) - 1]))
                steps += 1
        return _Timed(time.perf_counter() - began, tokens * self._batch, steps)

    def generate(self, tokens: int) -> _Timed:
        """Generate so many tokens in each sequence, all at once, from an empty context."""
        ids = [1 + i % (self._vocab - 1) for i in range(self._batch)]
        began = time.perf_counter()
        for position in range(tokens):
            if self._stopped:
                break
            rows = [self._rows(i, i, 1, position) for i in range(self._batch)]
            logits = self._backend.execute(Batch(ids, rows, range(self._batch)))
            ids = np.argmax(logits, axis=-1).tolist()
        return _Timed(time.perf_counter() - began, tokens * self._batch, tokens)

    def _rows(self, sequence: int, start: int, count: int, position: int) -> SequenceRows:
        return SequenceRows(start, count, position, self._pages[sequence], sequence, sequence)
