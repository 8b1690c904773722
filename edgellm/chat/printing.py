"""How long a value is when it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from edgellm.chat.budget import MAX_DEPTH, PLAIN, SEQUENCES, BudgetExceededError, check_chars, current_budget

_TICK_EVERY = 2**10


def printed_size(value: Any) -> int:
    """At least how many characters `str(value)` has, of an integer in any base.

    BudgetExceededError as soon as they are too many, or the value is nested too deeply.
    A small list that holds another list ten times, which holds another ten times, and so on, prints as
    billions of characters: each mention counts.
    """
    if isinstance(value, str):
        check_chars(len(value))
        return len(value)
    size, steps, stack = 0, 0, [iter((value,))]
    while stack:
        for item in stack[-1]:
            size, steps = size + _own_size(item), steps + 1
            if steps % _TICK_EVERY == 0:
                current_budget().tick()
                check_chars(size)
            inner = _parts(item)
            if inner is not None:
                stack.append(iter(inner))
                break
        else:
            stack.pop()
        if len(stack) > MAX_DEPTH:
            raise BudgetExceededError(f"it printed lists or mappings nested more than {MAX_DEPTH} deep")
    check_chars(size)
    return size


def _own_size(item: Any) -> int:
    if isinstance(item, str | bytes):
        return len(item)
    return max(1, item.bit_length()) if isinstance(item, int) else 1


def _parts(item: Any) -> Iterable[Any] | None:
    """What is printed within a value, if anything is."""
    if type(item) in PLAIN:
        return None
    if isinstance(item, Mapping):
        return chain(item.keys(), item.values())
    return item if isinstance(item, SEQUENCES) else None
