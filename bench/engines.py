"""The two sides of a comparison, behind one face: prompts and decoding of token ids, nothing sampled."""

from __future__ import annotations

import ctypes
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from edgellm import models
from edgellm.backends.base import PAGE_SIZE, BackendConfig, Batch, SequenceRows
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.gguf import open_gguf

STEP = 256  # tokens of our largest step, as the engine has it


@dataclass(frozen=True)
class Setup:
    """What both sides are started with: `context` tokens for each of `sequences`."""

    path: str
    threads: int
    context: int
    sequences: int = 1
    kv_type: str = "f16"


class Engine(ABC):
    """One side. Every call begins with empty sequences, or with the context that `fill` left."""

    @abstractmethod
    def fill(self, tokens: list[int]) -> None:
        """Let each sequence hold these tokens, and come back to them before each `decode`."""

    @abstractmethod
    def prefill(self, tokens: list[int]) -> float:
        """Seconds for a prompt in one sequence."""

    @abstractmethod
    def decode(self, tokens: list[int], sequences: int) -> float:
        """Seconds for decoding `tokens`, one after the other, in each of so many sequences at once."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back."""


class Ours(Engine):
    """edgellm's CPU backend."""

    def __init__(self, setup: Setup) -> None:
        self._file = open_gguf(setup.path)
        each = -(-setup.context // PAGE_SIZE)
        config = BackendConfig(
            kv_type=setup.kv_type,
            num_pages=each * setup.sequences,
            max_tokens=STEP,
            max_outputs=setup.sequences,
            max_sequences=setup.sequences,
            threads=setup.threads,
        )
        self._backend = CPUBackend(models.build(self._file), self._file, config)
        self._pages = [list(range(i * each, (i + 1) * each)) for i in range(setup.sequences)]
        self._filled = 0

    def _feed(self, tokens: list[int], sequence: int) -> None:
        for i in range(0, len(tokens), STEP):
            part = tokens[i : i + STEP]
            last = [len(part) - 1] if i + STEP >= len(tokens) else []
            self._backend.execute(Batch(part, [SequenceRows(0, len(part), i, self._pages[sequence])], last))

    def fill(self, tokens: list[int]) -> None:
        for sequence in range(len(self._pages)):
            self._feed(tokens, sequence)
        self._filled = len(tokens)

    def prefill(self, tokens: list[int]) -> float:
        began = time.perf_counter()
        self._feed(tokens, 0)
        return time.perf_counter() - began

    def decode(self, tokens: list[int], sequences: int) -> float:
        began = time.perf_counter()
        for i, token in enumerate(tokens):
            self.step([token], sequences, i)
        return time.perf_counter() - began

    def step(self, tokens: list[int], sequences: int, after: int = 0) -> None:
        """One step: each of so many sequences takes `tokens`, so many after its context; logits of all."""
        count = len(tokens)
        rows = [
            SequenceRows(s * count, count, self._filled + after, self._pages[s]) for s in range(sequences)
        ]
        self._backend.execute(Batch(tokens * sequences, rows, range(count * sequences)))

    def close(self) -> None:
        self._backend.close()
        self._file.close()


class LlamaCpp(Engine):
    """llama.cpp through the low-level functions of llama-cpp-python, at its defaults."""

    def __init__(self, setup: Setup) -> None:
        self._peer = peer = llama_cpp()
        self._silent = peer.llama_log_callback(lambda level, text, data: None)
        peer.llama_log_set(self._silent, ctypes.c_void_p(0))
        peer.llama_backend_init()
        self._model = peer.llama_model_load_from_file(setup.path.encode(), peer.llama_model_default_params())
        params = peer.llama_context_default_params()
        params.n_ctx, params.n_seq_max = setup.context * setup.sequences, setup.sequences
        params.n_threads, params.n_threads_batch = setup.threads, setup.threads
        if setup.kv_type != "f16":
            params.type_k = params.type_v = {"f32": 0, "q8_0": 8}[setup.kv_type]
        self._context = peer.llama_init_from_model(self._model, params)
        if not self._context:
            sys.exit("llama.cpp could not make a context")
        self._memory = peer.llama_get_memory(self._context)
        self._filled = 0
        self._most = int(params.n_batch)

    def _step(self, tokens: list[int], position: int, sequences: int) -> None:
        """So many sequences take `tokens` each, from `position` on; the last one's logits come out."""
        count = len(tokens)
        batch = self._peer.llama_batch_init(count * sequences, 0, 1)
        batch.n_tokens = count * sequences
        for row in range(count * sequences):
            sequence, i = divmod(row, count)
            batch.token[row], batch.pos[row] = tokens[i], position + i
            batch.n_seq_id[row], batch.seq_id[row][0] = 1, sequence
            batch.logits[row] = i == count - 1
        if self._peer.llama_decode(self._context, batch):
            sys.exit(f"llama.cpp could not decode {count} tokens of {sequences} sequences")
        self._peer.llama_synchronize(self._context)
        self._peer.llama_batch_free(batch)

    def _back_to(self, position: int) -> None:
        self._peer.llama_memory_seq_rm(self._memory, -1, position, -1)

    def fill(self, tokens: list[int]) -> None:
        self._back_to(0)
        each = self._most // self._sequences()
        for i in range(0, len(tokens), each):
            self._step(tokens[i : i + each], i, self._sequences())
        self._filled = len(tokens)

    def _sequences(self) -> int:
        return int(self._peer.llama_n_seq_max(self._context))

    def prefill(self, tokens: list[int]) -> float:
        self._back_to(0)
        self._filled = 0
        began = time.perf_counter()
        for i in range(0, len(tokens), self._most):
            self._step(tokens[i : i + self._most], i, 1)
        return time.perf_counter() - began

    def decode(self, tokens: list[int], sequences: int) -> float:
        self._back_to(self._filled)
        began = time.perf_counter()
        for i, token in enumerate(tokens):
            self._step([token], self._filled + i, sequences)
        return time.perf_counter() - began

    def close(self) -> None:
        self._peer.llama_free(self._context)
        self._peer.llama_model_free(self._model)


def system_info() -> str:
    """What the peer says it was built for."""
    return str(llama_cpp().llama_print_system_info().decode().strip())


def llama_cpp() -> Any:
    """The peer's module. Ends the script where it is not installed."""
    try:
        import llama_cpp as peer
    except ModuleNotFoundError as error:
        raise SystemExit(f"{error}: pip install -e '.[bench]' brings it") from error
    return peer
