"""The tensors that a graph is built over: each is looked up by name and held against the shape wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

from edgellm.errors import FormatError
from edgellm.graph.graph import Weight


class HasShape(Protocol):
    """What a graph needs to know of a tensor in the file."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Tensors:
    """Tensors by GGUF name; a name may leave out its `.weight`."""

    def __init__(self, tensors: Mapping[str, HasShape]) -> None:
        self._tensors = tensors

    def has(self, name: str) -> bool:
        """Whether the file has this tensor."""
        return name in self._tensors or name + ".weight" in self._tensors

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape that the file gives a tensor, rows first."""
        return tuple(self._tensors[self._full(name)].shape)

    def weight(self, name: str, *shape: int | None) -> Weight:
        """The tensor `name`, which must have this shape; None allows any size there.

        Leading ones do not count: some writers leave them out.
        """
        full = self._full(name)
        found = _with_dims(tuple(self._tensors[full].shape), len(shape))
        if len(found) != len(shape) or any(
            wanted is not None and have != wanted for have, wanted in zip(found, shape, strict=True)
        ):
            raise self._misfit(full, "x".join("any" if n is None else str(n) for n in shape))
        return Weight(full, found)

    def vector(self, name: str, size: int) -> Weight:
        """A tensor of `size` elements, in whatever shape the file has it."""
        full = self._full(name)
        if math.prod(self._tensors[full].shape) != size:
            raise self._misfit(full, str(size))
        return Weight(full, (size,))

    def optional(self, name: str, *shape: int | None) -> Weight | None:
        """Like `weight`, but None when the file does not have it."""
        return self.weight(name, *shape) if self.has(name) else None

    def _full(self, name: str) -> str:
        full = name if name in self._tensors else name + ".weight"
        if full not in self._tensors:
            raise FormatError(f"the file has no tensor {full!r}, which its architecture needs")
        return full

    def _misfit(self, full: str, wanted: str) -> FormatError:
        found = "x".join(str(n) for n in self._tensors[full].shape)
        return FormatError(f"tensor {full!r} has shape {found}; its architecture and metadata need {wanted}")


def _with_dims(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """A shape with ones put before it, or taken from its front, until it has `count` sizes (if it can)."""
    extra = len(shape) - count
    if extra <= 0:
        return (1,) * -extra + shape
    return shape[extra:] if all(n == 1 for n in shape[:extra]) else shape
