"""What `kernels/sample.py` reads: how the token of each output row is to be chosen."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence

from edgellm.kernels import layout as L
from edgellm.sampling import Draw

_ROW = struct.Struct(f"={L.DR_SIGMA}q{L.DR_WORDS - L.DR_SIGMA}d")
_NONE = _ROW.pack(-1, *[0] * (L.DR_WORDS - 1))


class DrawTable:
    """The draws of one step, and the tokens that came of them; nothing where no row is to be drawn."""

    def __init__(self, draws: Sequence[Draw | None] = ()) -> None:
        self._patches: list[array[float]] = []
        ours = [d if d is not None and d.top_k <= L.MOST_BEST else None for d in draws]
        rows = [_NONE if d is None else self._row(d) for d in ours] if any(ours) else []
        self._rows = array("q", b"".join(rows))

    def _row(self, draw: Draw) -> bytes:
        patches = array("d", [word for patch in draw.patches for word in (*patch, 0.0)])
        self._patches.append(patches)
        return _ROW.pack(-1, draw.vocab, draw.top_k, address_of(patches), len(draw.patches), *draw[2:-1])

    @property
    def address(self) -> int:
        """Where the rows are, or 0."""
        return address_of(self._rows) if len(self._rows) else 0

    def tokens(self) -> list[int]:
        """The chosen tokens, -1 where none was."""
        return self._rows[L.DR_TOKEN :: L.DR_WORDS].tolist()


def address_of(words: array[int] | array[float]) -> int:
    """Where an array's data begins."""
    return words.buffer_info()[0]
