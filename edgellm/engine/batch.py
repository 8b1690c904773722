"""A scheduled step in the words of the backend."""

from __future__ import annotations

from edgellm.backends.base import Batch, SequenceRows
from edgellm.engine.scheduler import Step


def as_batch(step: Step) -> Batch:
    """The step as the backend wants it: token ids [T], sequences in row order, output rows [O]."""
    tokens: list[int] = []
    rows: list[SequenceRows] = []
    outputs: list[int] = []
    for share in step.shares:
        s, start = share.sequence, len(tokens)
        tokens += s.tokens[s.computed : s.computed + share.count]
        rows.append(SequenceRows(start, share.count, s.computed, tuple(s.pages), s.slot, s.slot))
        outputs += range(len(tokens) - share.outputs, len(tokens))
    return Batch(tokens, rows, outputs)
