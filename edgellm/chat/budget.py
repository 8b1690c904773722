"""What one rendering may use: time, and characters."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from itertools import chain
from typing import Any

MAX_CHARS = 4 * 2**20  # of one string, and of the whole prompt
MAX_TOTAL_CHARS = 128 * 2**20  # of all strings made on the way, and of all lists at _BYTES_OF_ITEM
_BYTES_OF_ITEM = 8
MAX_PARTS = 2**18  # of a list or mapping that the template makes, with all in it, each mention counted
MAX_SECONDS = 1.0  # of this thread's own time


class BudgetExceededError(Exception):
    """The template used more than it may; the message says of what."""


class Budget:
    """Counts what one rendering uses. BudgetExceededError when it is too much."""

    def __init__(self) -> None:
        self._deadline = time.thread_time() + MAX_SECONDS
        self._chars = 0
        self._parts: dict[int, tuple[Any, int]] = {}  # by id: a container, kept alive, and its parts

    def tick(self) -> None:
        """A step: an iteration of a loop, or a call."""
        if time.thread_time() > self._deadline:
            raise BudgetExceededError(f"it ran for more than {MAX_SECONDS:g} s")

    def charge(self, value: Any) -> Any:
        """Account for a new value, and hand it back."""
        if isinstance(value, str | bytes):
            check_chars(len(value))
            self._spend(len(value))
        elif isinstance(value, list | tuple | dict):
            check_chars(len(value))
            self._spend(_BYTES_OF_ITEM * len(value))
            self._count(value)
        return value

    def joined(self, left: Any, right: Any, value: Any) -> Any:
        """`charge` for value = left + right: lists whose parts are known need not be counted again."""
        if (
            isinstance(value, list | tuple)
            and isinstance(left, list | tuple)
            and isinstance(right, list | tuple)
        ):
            self._parts[id(value)] = value, min(self._count(left) + self._count(right), MAX_PARTS + 1)
        return self.charge(value)

    def _spend(self, chars: int) -> None:
        self._chars += chars
        if self._chars > MAX_TOTAL_CHARS:
            raise BudgetExceededError(f"it made more than {MAX_TOTAL_CHARS} characters on the way")

    def _count(self, container: Any) -> int:
        """How many parts a container has. Templates cannot change one, so it is counted once.

        What they can do is put one into another twice, and that again, until comparing two of them takes
        forever; so every container is counted when it is made.
        """
        known = self._parts.get(id(container))
        if known is not None and known[1] <= MAX_PARTS:
            return known[1]
        total = 1
        items = chain(container, container.values()) if isinstance(container, dict) else container
        for item in items:
            total += self._count(item) if isinstance(item, list | tuple | dict) else 1
            if total > MAX_PARTS:
                raise BudgetExceededError(f"it made a list or mapping of more than {MAX_PARTS} parts")
        self._parts[id(container)] = container, total
        return total


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
