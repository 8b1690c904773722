"""What the engine needs of any backend: load a model, execute a batch, and copy pages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.profile import Profile
from edgellm.errors import UnsupportedError, UsageError
from edgellm.gguf import TensorInfo
from edgellm.graph import Graph
from edgellm.sampling import Draw

PAGE_SIZE = 32  # tokens a page holds, on every backend: attention's arithmetic is cut there

KV_TYPES = ("f32", "f16", "q8_0")

LoadProgress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


class WeightFile(Protocol):
    """A file of tensors (a GGUFFile is one)."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def data(self, name: str) -> NDArray[np.uint8]: ...

    def release(self, name: str) -> None: ...


@dataclass(frozen=True)
class BackendConfig:
    """Sizes that are fixed when a model is loaded."""

    kv_type: str | tuple[str, str] = "f16"  # of the KV cache; a pair: of keys, of values
    num_pages: int = 64  # pages in the KV ring; each holds PAGE_SIZE tokens of every layer
    num_slots: int = 1  # states of sequences, for models that have any
    max_tokens: int = 256  # T of the largest step
    max_outputs: int = 64  # O of the largest step
    max_sequences: int = 8  # S of the largest step
    threads: int | None = None  # None: as many as the machine's physical cores
    low_memory: bool = False  # weights stay in the mapped file and are packed anew in each step

    def __post_init__(self) -> None:
        for kind in self.kv_types:
            if kind not in KV_TYPES:
                raise UsageError(f"kv_type {kind!r} is not one of {', '.join(KV_TYPES)}", "kv_type")

    @property
    def kv_types(self) -> tuple[str, str]:
        """The types of keys and of values."""
        return (self.kv_type, self.kv_type) if isinstance(self.kv_type, str) else self.kv_type


@dataclass(frozen=True)
class SequenceRows:
    """One sequence's share of a step: `count` rows from row `start`, the first at `position`.

    `pages` is its page table, long enough for position + count tokens. Its state is read from slot `slot_in`
    (ignored at position 0, where it is zero) and written to `slot_out`.
    """

    start: int
    count: int
    position: int
    pages: Sequence[int]
    slot_in: int = 0
    slot_out: int = 0


@dataclass(frozen=True)
class Batch:
    """One step: token ids [T], the sequences they belong to in row order, and the rows [O] to give out.

    `draws`, if there are any, has for each of those rows how its token may be chosen, or None.
    """

    tokens: Sequence[int]
    sequences: Sequence[SequenceRows]
    outputs: Sequence[int]
    draws: Sequence[Draw | None] = ()


class Backend(ABC):
    """A loaded model that can execute batches. Not thread-safe: the engine's thread owns it."""

    def __init__(
        self, graph: Graph, file: WeightFile, config: BackendConfig, progress: LoadProgress | None = None
    ) -> None:
        self.graph = graph
        self.config = config

    @classmethod  # noqa: B027
    def prepare(cls, graph: Graph, file: WeightFile, config: BackendConfig) -> None:
        """Begin, in the background, what such a model needs, while the tensors of `file` are on their way."""

    @classmethod
    def needs(cls, graph: Graph, file: WeightFile, config: BackendConfig) -> tuple[int, int]:
        """About how many bytes will be held: of weights, and of each page."""
        weights = 0 if config.low_memory else sum(file.tensors[name].nbytes for name in graph.weights())
        return weights, page_bytes(graph, config.kv_types)

    @abstractmethod
    def execute(self, batch: Batch) -> NDArray[np.float32]:
        """Run one step: f32 [O, vocab] (or [S, dim] for pooling graphs), valid until the next call."""

    def drawn(self) -> Sequence[int]:
        """The tokens that the last `execute` chose, [O], -1 where it did not; nothing from a backend that
        never does.
        """
        return ()

    @abstractmethod
    def copy_page(self, source: int, target: int) -> None:
        """Make page `target` hold what `source` holds, in every layer."""

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes held: "weights", "kv_cache", "scratch"."""

    def profile(self) -> Profile:
        """Begin to add up where the time of each step goes. Raises UnsupportedError where nobody can tell."""
        raise UnsupportedError("this backend cannot tell where its time goes; use the cpu backend")

    def cancel(self) -> None:  # noqa: B027  # most backends have nothing to do
        """Ask a running `execute` to stop early; callable from any thread. Its results are then void."""

    def close(self) -> None:  # noqa: B027
        """Give everything back."""


def most_positions(graph: Graph, config: BackendConfig) -> int:
    """Positions that a sequence can have: of those the model was made for, as many as there are pages for."""
    room = config.num_pages * PAGE_SIZE if graph.caches else graph.context_length
    return min(graph.context_length, room)


def page_bytes(graph: Graph, kv_types: tuple[str, str]) -> int:
    """Bytes of one page over all layers."""
    k, v = kv_types
    return sum(c.num_kv_heads * (kv_bytes(k, c.key_dim) + kv_bytes(v, c.value_dim)) for c in graph.caches)


def kv_bytes(kind: str, dim: int) -> int:
    """Bytes of a page's keys (or values) of one head; q8_0 has an f16 scale for 32 dimensions."""
    if kind == "q8_0":
        return PAGE_SIZE * (dim + 2 * -(-dim // 32))
    return PAGE_SIZE * dim * {"f32": 4, "f16": 2}[kind]


def slot_bytes(graph: Graph) -> int:
    """Bytes of one sequence's states."""
    return 4 * sum(int(np.prod(s.shape)) for s in graph.states)


def positions_of(batch: Batch) -> NDArray[np.int32]:
    """The position of every row, [T]."""
    return np.concatenate(
        [np.arange(s.position, s.position + s.count, dtype=np.int32) for s in batch.sequences]
    )
