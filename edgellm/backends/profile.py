"""Where the time of steps goes: for each kind of op its time, and the bytes and operations it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgellm.backends.base import Batch

OUTSIDE = "outside the plan"  # the header, page tables, waking the team


class Work(NamedTuple):
    """What an op moves and computes. Keys are those that rows attend to."""

    label: str
    step_bytes: int = 0  # weights
    row_bytes: int = 0
    row_operations: int = 0  # a multiplication and its addition are two
    key_bytes: int = 0
    key_operations: int = 0


@dataclass
class OpTime:
    """All ops of one label, over all steps. Bytes are those of weights, rows and keys."""

    op: str
    count: int = 0
    seconds: float = 0.0
    bytes: int = 0
    operations: int = 0

    @property
    def gigabytes_per_second(self) -> float:
        return self.bytes / self.seconds / 1e9 if self.seconds > 0 else 0.0

    @property
    def gigaoperations_per_second(self) -> float:
        return self.operations / self.seconds / 1e9 if self.seconds > 0 else 0.0


class Profile:
    """Adds up the steps of one plan, whose ops do `work`."""

    def __init__(self, work: Sequence[Work]) -> None:
        self._work = work
        self._rows: dict[str, OpTime] = {OUTSIDE: OpTime(OUTSIDE)}

    def add(self, batch: Batch, rows: Sequence[int], times: NDArray[np.int64], seconds: float) -> None:
        """One step: each op's rows, when the plan began and each op was over (ns), and the seconds of all."""
        spent = np.diff(times) / 1e9
        read = sum(s.position + s.count for s in batch.sequences)
        pairs = sum(s.count * (2 * s.position + s.count + 1) // 2 for s in batch.sequences)
        for work, count, took in zip(self._work, rows, spent.tolist(), strict=True):
            row = self._rows.setdefault(work.label, OpTime(work.label))
            row.count += 1
            row.seconds += took
            row.bytes += work.step_bytes * bool(count) + work.row_bytes * count + work.key_bytes * read
            row.operations += work.row_operations * count + work.key_operations * pairs
        outside = self._rows[OUTSIDE]
        outside.count += 1
        outside.seconds += seconds - float(spent.sum())

    def rows(self) -> list[OpTime]:
        """What took longest first."""
        return sorted(self._rows.values(), key=lambda row: -row.seconds)
