"""What the ops of one step share, and the table that they enter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import Batch, positions_of
from edgellm.graph import Node, Value, ops

if TYPE_CHECKING:
    from edgellm.backends.reference.backend import ReferenceBackend

Array = NDArray[Any]
F32 = NDArray[np.float32]
OPS: dict[type[ops.Op], Callable[..., Array | tuple[Array, ...]]] = {}
_F = TypeVar("_F", bound=Callable[..., Any])


def implements(op: type[ops.Op]) -> Callable[[_F], _F]:
    """Enter the decorated function for the op of this class."""

    def register(function: _F) -> _F:
        OPS[op] = function
        return function

    return register


class Step:
    """What the ops of one step share."""

    def __init__(self, backend: ReferenceBackend, batch: Batch) -> None:
        self.backend = backend
        self.batch = batch
        self.positions = positions_of(batch)  # [T]
        self.values: dict[Value, Array] = {}

    def weights(self, node: Node) -> list[F32 | None]:
        """The node's tensors, None where an optional one is absent."""
        return [self.backend.weight(w) if w is not None else None for w in node.weights]

    def need(self, node: Node, index: int = 0) -> F32:
        """A tensor that must be there."""
        weight = node.weights[index]
        assert weight is not None
        return self.backend.weight(weight)

    def by_sequence(self) -> list[tuple[slice, int, int, int]]:
        """Rows, first position, slot_in and slot_out of each sequence."""
        return [
            (slice(s.start, s.start + s.count), s.position, s.slot_in, s.slot_out)
            for s in self.batch.sequences
        ]

    def state(self, index: int, position: int, slot: int) -> F32:
        """A copy of a sequence's state; zero at its beginning."""
        pool = self.backend.states[index]
        return pool[slot].copy() if position else np.zeros_like(pool[0])
