"""How many prompt tokens a step may take, so that steps are about equally long on every machine."""

from __future__ import annotations


class Pacer:
    """Adapts `chunk`, between `low` and `high` tokens, towards steps of `seconds`."""

    def __init__(self, seconds: float, low: int, high: int, start: int = 32) -> None:
        self._seconds, self._low, self._high = seconds, low, high
        self._size = float(min(max(start, low), high))

    @property
    def chunk(self) -> int:
        """Tokens for the next step, in eights where possible: kernels work in tiles of eight."""
        size = int(self._size)
        return max(self._low, size - size % 8 if size < self._high else size)

    def observe(self, tokens: int, seconds: float) -> None:
        """A step took `seconds` with so many tokens of prefill.

        It at most doubles or halves the chunk; a step that did not use its chunk only ever lowers it.
        """
        if tokens == 0:
            return
        factor = min(max(self._seconds / max(seconds, 1e-9), 0.5), 2.0)
        if factor < 1 or tokens >= self.chunk:
            self._size = min(max(tokens * factor, self._low), self._high)
