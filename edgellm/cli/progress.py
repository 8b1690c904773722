"""How far a download, a compilation or packing has come: a bar in a terminal, else a line for each."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_SECONDS = 0.4  # what is over sooner is not worth a bar
_MIB = 2**20


class ProgressShow:
    """Called with what is being done, how much of it is done, and of how much (0 or None: nobody knows).

    Totals beyond a million are bytes. It writes to stderr only.
    """

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._began: dict[str, float] = {}
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._lines: set[str] = set()

    def __call__(self, what: str, done: int, total: int | None = None) -> None:
        began = self._began.setdefault(what, time.monotonic())
        if time.monotonic() - began < PATIENCE_SECONDS:
            return
        if self._terminal:
            self._draw(what, done, total)
        elif what not in self._lines:
            self._lines.add(what)
            size = f" ({total / _MIB:.0f} MiB)" if total and total > 10**6 else ""
            print(f"{what}{size} ...", file=sys.stderr, flush=True)

    def _draw(self, what: str, done: int, total: int | None) -> None:
        if self._bars is None:
            self._bars = _bars()
            self._bars.start()
        amount = _amount(done, total)
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total or None, amount=amount)
        self._bars.update(self._tasks[what], completed=done, total=total or None, amount=amount)

    def __enter__(self) -> ProgressShow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Clear the bars away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _amount(done: int, total: int | None) -> str:
    if not total:
        return f"{done / _MIB:.0f} MiB"
    return f"{done / _MIB:.0f}/{total / _MIB:.0f} MiB" if total > 10**6 else f"{done}/{total}"


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True),
        transient=True,
    )
