"""What one rendering may use: time, and characters."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

MAX_CHARS = 4 * 2**20  # of one string, and of the whole prompt
MAX_TOTAL_CHARS = 256 * 2**20  # of all strings made on the way
MAX_SECONDS = 5.0


class BudgetExceededError(Exception):
    """The template used more than it may; the message says of what."""


class Budget:
    """Counts what one rendering uses. BudgetExceededError when it is too much."""

    def __init__(self) -> None:
        self._deadline = time.perf_counter() + MAX_SECONDS
        self._chars = 0

    def tick(self) -> None:
        """A step: an iteration of a loop, or a call."""
        if time.perf_counter() > self._deadline:
            raise BudgetExceededError(f"it ran for more than {MAX_SECONDS:g} s")

    def charge(self, value: Any) -> Any:
        """Account for a new value, and hand it back."""
        if isinstance(value, str | bytes | list | tuple):
            check_chars(len(value))
            self._chars += len(value)
            if self._chars > MAX_TOTAL_CHARS:
                raise BudgetExceededError(f"it made more than {MAX_TOTAL_CHARS} characters on the way")
        return value


# The budget of the rendering that is going on in this context. Outside any, for what Jinja2 evaluates
# while compiling, a fresh one.
_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current_budget() -> Budget:
    return _current.get() or Budget()


def start_budget() -> None:
    _current.set(Budget())


def check_chars(count: int) -> None:
    """BudgetExceededError if a text of that many characters is too long."""
    if count > MAX_CHARS:
        raise BudgetExceededError(f"it made a text of more than {MAX_CHARS} characters")


class Ticking:
    """An iterable that counts its iterations; as long as the one that it wraps."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        budget = current_budget()
        for item in self._inner:
            budget.tick()
            yield item


def printed_size(value: Any) -> int:
    """At least how many characters `str(value)` has. BudgetExceededError as soon as it is too many.

    A small list that holds another list ten times, which holds another ten times, and so on, prints as
    billions of characters: each mention counts.
    """
    if isinstance(value, str):
        return len(value)
    size, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        size += len(item) if isinstance(item, str | bytes) else 1
        check_chars(size + len(waiting))
        if isinstance(item, Mapping):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple | set | frozenset):
            waiting += item
    return size
