"""A scheduled step in the words of the backend."""

from __future__ import annotations

from collections.abc import Callable

from edgellm.backends.base import Batch, SequenceRows
from edgellm.engine.scheduler import Share, Step
from edgellm.sampling import Draw


def as_batch(step: Step, draw: Callable[[Share], Draw | None]) -> Batch:
    """The step as the backend wants it: token ids [T], sequences in row order, output rows [O], draws [O]."""
    tokens: list[int] = []
    rows: list[SequenceRows] = []
    outputs: list[int] = []
    draws: list[Draw | None] = []
    for share in step.shares:
        s, start = share.sequence, len(tokens)
        tokens += s.tokens[s.computed : s.computed + share.count]
        rows.append(SequenceRows(start, share.count, s.computed, tuple(s.pages), s.slot, s.slot))
        outputs += range(len(tokens) - share.outputs, len(tokens))
        if share.outputs:
            draws += [*[None] * (share.outputs - 1), draw(share)]
    return Batch(tokens, rows, outputs, draws)
