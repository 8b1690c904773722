"""A sequence: the tokens of one choice, how far they are computed, and the pages that hold them."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from edgellm.engine.ring import Key


class State(enum.Enum):
    """Where a sequence stands."""

    WAITING = "waiting"  # holds no page; has perhaps run before
    RUNNING = "running"  # holds the pages of all its tokens
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """`tokens` are prompt and answer; the first `computed` of them are in the cache's pages."""

    order: tuple[int, int]  # (arrival, choice): who is served first, and preempted last
    tokens: list[int]
    root: Key = b""  # salt of the prefix cache: whatever else changes the bytes
    all_rows: bool = False  # the logits of every position are wanted: nothing is reused or offered for reuse
    state: State = State.WAITING
    computed: int = 0
    cached: int = 0  # tokens found in the cache when it last began to run
    slot: int = 0
    pages: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)  # of the first full pages, as far as they are findable

    @property
    def remaining(self) -> int:
        """Tokens not computed yet."""
        return len(self.tokens) - self.computed

    def parent_key(self) -> Key:
        """The key under which the next page is findable."""
        return self.keys[-1] if self.keys else self.root
