"""What one rendering may use: time, and memory."""

from __future__ import annotations

import time
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from contextvars import ContextVar
from itertools import chain
from sys import getsizeof
from typing import Any

MAX_CHARS = 4 * 2**20  # of one string, and of the whole prompt
MAX_TOTAL_CHARS = 128 * 2**20  # of all values made on the way, each counted with the bytes that it takes
MAX_ITEMS = 2**20  # of one list
MAX_PARTS = 2**18  # of a list or mapping that the template makes, with all in it, each mention counted
MAX_DEPTH = 200  # of lists in lists
MAX_BITS = 2**16  # of an integer
MAX_SECONDS = 1.0  # of this thread's own time, for 200 messages
_MESSAGES = 200  # for each that many more, as long again: templates look back at all before each message
_MOST = 5  # times as long, at most
_ITEM_BYTES = 80  # of a short text, or a pair, which a list made by a function may be full of

PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
SEQUENCES = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
_CONTAINERS = (dict, *SEQUENCES)


class BudgetExceededError(Exception):
    """The template used more than it may; the message says of what."""


class Budget:
    """Counts what one rendering uses. BudgetExceededError when it is too much.

    `messages` are how many it renders: more have more time.
    """

    def __init__(self, messages: int = 0) -> None:
        self._seconds = MAX_SECONDS * min(max(1, messages / _MESSAGES), _MOST)
        self._deadline = time.thread_time() + self._seconds
        self._bytes = 0
        # By id: a container, kept alive, its parts, and its depth.
        self._known: dict[int, tuple[Any, int, int]] = {}

    @property
    def spent(self) -> int:
        """Bytes of all values so far."""
        return self._bytes

    def tick(self) -> None:
        """A step: an iteration of a loop, a call, a comparison."""
        if time.thread_time() > self._deadline:
            raise BudgetExceededError(f"it ran for more than {self._seconds:g} s")

    def spend(self, nbytes: int) -> None:
        """Account for memory."""
        self._bytes += nbytes
        if self._bytes > MAX_TOTAL_CHARS:
            raise BudgetExceededError(f"it made more than {MAX_TOTAL_CHARS} bytes of values on the way")

    def charge(self, value: Any) -> Any:
        """Account for a new value, and hand it back."""
        self.spend(getsizeof(value, 64))
        if isinstance(value, str | bytes):
            check_chars(len(value))
        elif isinstance(value, int):
            check_bits(value.bit_length())
        elif isinstance(value, _CONTAINERS):
            check_items(len(value))
            self.count(value)
        return value

    def charge_made(self, value: Any) -> Any:
        """`charge` for what a function gave, whose items may be new as well."""
        if isinstance(value, list | tuple | set):
            self.spend(_ITEM_BYTES * len(value))
        return self.charge(value)

    def joined(self, left: Any, right: Any, value: Any) -> Any:
        """`charge` for value = left + right: lists whose parts are known need not be counted again."""
        if isinstance(value, list | tuple) and type(left) is type(right) is type(value):
            (parts, depth), (more, deeper) = self.count(left), self.count(right)
            self._known[id(value)] = value, parts + more, max(depth, deeper)
        return self.charge(value)

    def count(self, container: Any) -> tuple[int, int]:
        """How many parts a container has, and how deep it is; once, because templates cannot change one.

        What they can do is put one into another twice, and that again, until comparing two of them takes
        forever, or one into another so often that hashing it overflows the stack.
        """
        known = self._known.get(id(container))
        if known is None:
            known = self._known[id(container)] = container, *self._counted(container)
        _, parts, depth = known
        if parts > MAX_PARTS:
            raise BudgetExceededError(f"it made a list or mapping of more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise BudgetExceededError(f"it nested lists or mappings more than {MAX_DEPTH} deep")
        return parts, depth

    def _counted(self, container: Any) -> tuple[int, int]:
        total, deepest = 1, 0
        items = chain(container, container.values()) if isinstance(container, dict) else container
        for item in items:
            parts, depth = self.count(item) if is_container(item) else (1, 0)
            total, deepest = total + parts, max(deepest, depth)
            if total > MAX_PARTS:
                break
        return total, deepest + 1


# The budget of the rendering that is going on in this context. Outside any, for what Jinja2 evaluates
# while compiling, a fresh one.
_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current_budget() -> Budget:
    return _current.get() or Budget()


def start_budget(messages: int) -> Budget:
    """The budget of a rendering of that many messages."""
    budget = Budget(messages)
    _current.set(budget)
    return budget


def is_container(value: Any) -> bool:
    """Whether it holds other values that are compared and hashed with it."""
    return type(value) not in PLAIN and isinstance(value, _CONTAINERS)


def bounded(value: Any) -> Any:
    """The value, which may be compared, sorted and hashed: it has not too many parts."""
    if is_container(value):
        current_budget().count(value)
    return value


def check_chars(count: int) -> None:
    """BudgetExceededError if a text of that many characters is too long."""
    if count > MAX_CHARS:
        raise BudgetExceededError(f"it made a text of more than {MAX_CHARS} characters")


def check_items(count: int) -> None:
    """BudgetExceededError if a list of that many items is too long."""
    if count > MAX_ITEMS:
        raise BudgetExceededError(f"it made a list of more than {MAX_ITEMS} items")


def check_bits(count: int) -> None:
    """BudgetExceededError if an integer of that many bits is too large."""
    if count > MAX_BITS:
        raise BudgetExceededError(f"it made an integer of more than {MAX_BITS} bits")


class Ticking:
    """An iterable that counts its iterations, each at `cost` bytes; as long as the one that it wraps."""

    def __init__(self, inner: Any, cost: int = 0) -> None:
        self._inner = inner
        self._cost = cost

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        budget = current_budget()
        for item in self._inner:
            budget.tick()
            budget.spend(self._cost)
            yield item
