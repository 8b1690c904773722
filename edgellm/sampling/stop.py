"""Stop strings: text is held back while it may still become one, and cut before it."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Ends streamed text at the stop string that is complete first, however the text is cut into chunks."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """More text: what of it is certain to be output, and whether a stop string has ended it."""
        if not self._stops:
            return text, False
        text = self._held + text
        start = self._find(text)
        if start is not None:
            self._held = ""
            return text[:start], True
        keep = self._open_end(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def finish(self, text: str = "") -> str:
        """The last text: what of it, and of what was held back, is output."""
        certain, stopped = self.push(text)
        if not stopped:
            certain += self._held
        self._held = ""
        return certain

    def _find(self, text: str) -> int | None:
        """Where the stop string that is complete first begins; of those that end together, the longest."""
        found = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        return min(found)[1] if found else None

    def _open_end(self, text: str) -> int:
        """The length of the longest end of `text` that begins a stop string."""
        longest = min(max(map(len, self._stops)) - 1, len(text))
        for size in range(longest, 0, -1):
            if any(s.startswith(text[-size:]) for s in self._stops):
                return size
        return 0
