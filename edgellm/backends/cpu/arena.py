"""One block of memory for all that a step computes: buffers whose lives do not overlap may share a place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_LINE = 64


@dataclass(eq=False)
class Buffer:
    """Bytes that are written and read between two ops of the plan."""

    size: int
    first: int  # number of the op that first touches it
    last: int = field(default=-1)  # and of the last
    offset: int = -1  # in the arena, once it is laid out


@dataclass(frozen=True)
class Ref:
    """An address inside a buffer, known once the arena is laid out."""

    buffer: Buffer
    offset: int = 0

    def __add__(self, offset: int) -> Ref:
        return Ref(self.buffer, self.offset + offset)


class Arena:
    """Hands out buffers, then lays them out."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._memory: NDArray[np.uint8] | None = None

    def buffer(self, size: int, op: int) -> Ref:
        """A new buffer of `size` bytes, first touched by op number `op`."""
        made = Buffer(-(-size // _LINE) * _LINE, op, op)
        self._buffers.append(made)
        return Ref(made)

    @staticmethod
    def touch(ref: Ref, op: int) -> None:
        """Op number `op` uses the buffer."""
        ref.buffer.last = max(ref.buffer.last, op)

    def lay_out(self) -> int:
        """Place every buffer, largest first, at the lowest offset where it overlaps no living neighbour;
        total bytes.
        """
        placed: list[Buffer] = []
        total = 0
        for b in sorted(self._buffers, key=lambda b: (-b.size, b.first)):
            rivals = sorted(
                (o for o in placed if o.first <= b.last and b.first <= o.last), key=lambda o: o.offset
            )
            offset = 0
            for rival in rivals:
                if offset + b.size <= rival.offset:
                    break
                offset = max(offset, rival.offset + rival.size)
            b.offset = offset
            placed.append(b)
            total = max(total, offset + b.size)
        self._memory = np.zeros(total + _LINE, np.uint8)
        return total

    def address(self, ref: Ref) -> int:
        """Where a ref is, after `lay_out`."""
        assert self._memory is not None
        base = -(-self._memory.ctypes.data // _LINE) * _LINE
        return int(base + ref.buffer.offset + ref.offset)

    def array(self, ref: Ref, rows: int, stride: int) -> NDArray[np.float32]:
        """f32 rows of `stride` bytes at a ref, after `lay_out`."""
        assert self._memory is not None
        start = self.address(ref) - self._memory.ctypes.data
        return self._memory[start : start + rows * stride].view(np.float32).reshape(rows, stride // 4)
