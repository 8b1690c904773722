"""Checks before a single step of a template that could make something huge.

The budget sees a value when it has been made. A text padded to 10**12 characters must not be made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from edgellm.chat.budget import BudgetExceededError, check_chars, printed_size

MAX_BITS = 2**16  # of an integer
MAX_ITEMS = 2**20  # of a list
_WIDE = re.compile(r"\d{5,}|\*|\{[^{}]*\{")


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Before `left operator right`, for +, *, ** and %."""
    if isinstance(left, str | bytes) and operator == "%":
        check_format(left, [right])
    elif operator == "+":
        check_chars(_length(left) + _length(right))
    elif operator == "*":
        _check_product(left, right)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() * right)


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int) or isinstance(right, int):
        times, sequence = (left, right) if isinstance(left, int) else (right, left)
        check_chars(_length(sequence) * times)


def _check_bits(bits: int) -> None:
    if bits > MAX_BITS:
        raise BudgetExceededError(f"it made an integer of more than {MAX_BITS} bits")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def check_format(template: Any, arguments: Iterable[Any]) -> None:
    """Before %-formatting or `str.format`: no computed or enormous widths, no flood of repetitions."""
    text = str(template)
    if _WIDE.search(text):
        raise BudgetExceededError(f"the width in the format {text[:40]!r} is over 9999, or computed")
    longest = max(map(printed_size, arguments), default=0)
    check_chars(len(text) + (text.count("%") + text.count("{")) * longest)


def check_replace(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    if isinstance(text, str) and isinstance(old, str):
        check_chars(len(text) + text.count(old) * max(0, len(new) - len(old)))
    elif isinstance(text, bytes):
        check_chars((len(text) + 1) * (_length(new) + 1))


def check_join(separator: Any, items: Iterable[Any]) -> list[Any]:
    """The items as a list, which together are not too long."""
    kept = list(islice(items, MAX_ITEMS + 1))
    if len(kept) > MAX_ITEMS:
        raise BudgetExceededError(f"it joined more than {MAX_ITEMS} items")
    size = 0
    for item in kept:
        size += printed_size(item) + len(separator)
        check_chars(size)
    return kept


def check_padding(text: Any, width: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(width, int):
        check_chars(width)


def check_lines(text: Any, width: Any = 8, *_: Any, **__: Any) -> None:
    """Before something is inserted at each line or tab: as if it were at each character."""
    check_chars((_length(text) + 1) * (width if isinstance(width, int) else _length(width)) // 8)


def _check_translate(text: Any, table: Any, *_: Any) -> None:
    values = table.values() if hasattr(table, "values") else table
    check_chars(_length(text) * max((_length(v) for v in values), default=0))


_METHODS: dict[str, Callable[..., None]] = {
    "center": check_padding,
    "ljust": check_padding,
    "rjust": check_padding,
    "zfill": check_padding,
    "expandtabs": check_lines,
    "replace": check_replace,
    "translate": _check_translate,
    "to_bytes": check_padding,
}


def check_method(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Before a call: refuses methods of text and numbers that would make too much.

    Gives the arguments to call with.
    """
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, str | bytes | int):
        return args
    name = getattr(function, "__name__", "")
    if name == "join" and args:
        return (check_join(owner, args[0]), *args[1:])
    if name in _METHODS:
        _METHODS[name](owner, *args, **kwargs)
        for value in kwargs.values():
            check_padding(owner, value)
    return args
