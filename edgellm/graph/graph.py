"""The graph itself: values with symbolic shapes, nodes in the order they run, and what outlives a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgellm.graph.ops import Embed, Op

if TYPE_CHECKING:
    from edgellm.graph.builder import Builder


@dataclass(frozen=True)
class Size:
    """A size that is known only when a step runs."""

    name: str

    def __repr__(self) -> str:
        return self.name


T = Size("T")  # tokens of the step
S = Size("S")  # sequences of the step
O = Size("O")  # noqa: E741  # output rows: the rows whose logits someone wants

Dim = int | Size


@dataclass(frozen=True)
class Weight:
    """A tensor of the file, by its GGUF name; `shape` in NumPy's order, rows first."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """What a node makes: `shape` starts with T, S or O; `dtype` is "f32" or "i32"."""

    index: int
    shape: tuple[Dim, ...]
    dtype: str
    builder: Builder = field(repr=False)

    @property
    def width(self) -> int:
        """Elements in one row: the product of all sizes but the first."""
        total = 1
        for dim in self.shape[1:]:
            assert isinstance(dim, int)
            total *= dim
        return total

    def __add__(self, other: Value) -> Value:
        return self.builder.add(self, other)

    def __mul__(self, other: Value | float) -> Value:
        return self.builder.mul(self, other) if isinstance(other, Value) else self.builder.scale(self, other)

    __rmul__ = __mul__

    def reshape(self, *sizes: int) -> Value:
        """The same rows, each seen as an array of `sizes`."""
        return self.builder.reshape(self, sizes)

    def slice(self, start: int, stop: int) -> Value:
        """Columns `start` to `stop` of the last axis."""
        return self.builder.slice(self, start, stop)


@dataclass(frozen=True, eq=False)
class Node:
    """One op between values. `weights` and `inputs` are in the order that the op's docstring gives."""

    op: Op
    inputs: tuple[Value, ...]
    weights: tuple[Weight | None, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class CacheSpec:
    """Keys and values that one attention layer keeps of each token.

    With `value_dim` 0 the values are the first columns of the keys (latent attention).
    """

    num_kv_heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class StateSpec:
    """An array of f32 that one layer keeps of each sequence and rewrites with each token."""

    shape: tuple[int, ...]


@dataclass
class Graph:
    """A whole model. `output` is [O, vocab] logits, or [S, dim] embeddings."""

    nodes: list[Node] = field(default_factory=list)
    caches: list[CacheSpec] = field(default_factory=list)
    states: list[StateSpec] = field(default_factory=list)
    output: Value | None = None
    vocab_size: int = 0
    context_length: int = 0
    causal: bool = True

    def weights(self) -> dict[str, Weight]:
        """Every weight that the graph uses, by name."""
        return {w.name: w for node in self.nodes for w in node.weights if w is not None}

    def weights_of_a_step(self) -> dict[str, Weight]:
        """Those that a step reads whole: of a table in which it only looks tokens up it reads a few rows."""
        readers = (node for node in self.nodes if not isinstance(node.op, Embed))
        return {w.name: w for node in readers for w in node.weights if w is not None}
