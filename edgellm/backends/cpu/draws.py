"""What `kernels/sample.py` reads: how the token of each output row is to be chosen."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgellm.kernels import layout as L
from edgellm.sampling import Draw

_ROW = struct.Struct(f"={L.DR_SIGMA}q{L.DR_WORDS - L.DR_SIGMA}d")
_NONE = _ROW.pack(-1, *[0] * (L.DR_WORDS - 1))


class DrawTable:
    """The draws of one step, and the tokens that came of them; nothing where no row is to be drawn."""

    def __init__(self, draws: Sequence[Draw | None] = ()) -> None:
        self._patches: list[NDArray[np.float64]] = []
        ours = [d if d is not None and d.top_k <= L.MOST_BEST else None for d in draws]
        rows = [_NONE if d is None else self._row(d) for d in ours] if any(ours) else []
        self._rows = np.frombuffer(bytearray().join(rows), np.int64).reshape(-1, L.DR_WORDS)

    def _row(self, draw: Draw) -> bytes:
        patches = np.array([(*patch, 0.0) for patch in draw.patches], np.float64)
        self._patches.append(patches)
        return _ROW.pack(-1, draw.vocab, draw.top_k, address_of(patches), len(patches), *draw[2:-1])

    @property
    def address(self) -> int:
        """Where the rows are, or 0."""
        return address_of(self._rows) if len(self._rows) else 0

    def tokens(self) -> list[int]:
        """The chosen tokens, -1 where none was."""
        return [int(token) for token in self._rows[:, L.DR_TOKEN]]


def address_of(array: NDArray[np.int32] | NDArray[np.int64] | NDArray[np.float64]) -> int:
    """Where an array's data begins: `ctypes.data` in a third of its time."""
    return int(array.__array_interface__["data"][0])
