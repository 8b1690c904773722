"""Checks before a single step of a template that could make something huge, or take long.

The budget sees a value when it has been made. A text padded to 10**12 characters must not be made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from jinja2.runtime import Macro

from edgellm.chat.budget import (
    MAX_ITEMS,
    SEQUENCES,
    BudgetExceededError,
    bounded,
    check_bits,
    check_chars,
    check_items,
)
from edgellm.chat.formats import check_percent
from edgellm.chat.printing import printed_size

MAX_SETTING = 1000  # of a number that is multiplied, or an exponent


def check_operator(operator: str, left: Any, right: Any) -> None:
    """Before `left operator right`."""
    if isinstance(left, str | bytes) and operator == "%":
        check_percent(left, right if isinstance(right, tuple) else [right])
    elif operator == "+":
        check_chars(_length(left) + _length(right))
    elif operator == "*":
        _check_product(left, right)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() * right)
    elif operator == "-":
        # Views of dicts have a difference.
        bounded(left)
        bounded(right)


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        check_bits(left.bit_length() + right.bit_length())
    elif isinstance(left, int) or isinstance(right, int):
        times, sequence = (left, right) if isinstance(left, int) else (right, left)
        check = check_items if isinstance(sequence, list | tuple) else check_chars
        check(_length(sequence) * times)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def check_replace(text: Any, old: Any = "", new: Any = "", *_: Any, **__: Any) -> None:
    if isinstance(text, str) and isinstance(old, str):
        check_chars(len(text) + text.count(old) * max(0, _length(new) - len(old)))
    elif isinstance(text, bytes):
        check_chars((len(text) + 1) * (_length(new) + 1))


def check_join(separator: Any, items: Iterable[Any]) -> list[Any]:
    """The items as a list, which together are not too long."""
    kept = list(islice(items, MAX_ITEMS + 1))
    check_items(len(kept))
    size = 0
    for item in kept:
        size += printed_size(item) + len(separator)
        check_chars(size)
    return kept


def check_padding(text: Any, width: Any = 0, *_: Any, **__: Any) -> None:
    if isinstance(width, int):
        check_chars(width)


def check_setting(value: Any) -> None:
    """Before a number becomes an exponent, or how many lists there are."""
    if isinstance(value, int) and value > MAX_SETTING:
        raise BudgetExceededError(f"it gave {MAX_SETTING} or more as a count")


def check_lines(text: Any, width: Any = 8, *_: Any, **__: Any) -> None:
    """Before something is inserted at each line or tab: as if it were at each character."""
    check_chars((_length(text) + 1) * (width if isinstance(width, int) else _length(width)) // 8)


def check_strip(text: Any, chars: Any = None, *_: Any, **__: Any) -> None:
    """Before characters are stripped: each of the text's is sought among them."""
    check_setting(_length(chars))


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
    "strip": check_strip,
    "lstrip": check_strip,
    "rstrip": check_strip,
}


def check_method(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Before a call: refuses what would make too much, or compare what is too large.

    Gives the arguments to call with.
    """
    if isinstance(function, Macro):
        return args
    owner = getattr(function, "__self__", None)
    if isinstance(owner, str | bytes | int):
        return _check_text_method(owner, getattr(function, "__name__", ""), args, kwargs)
    for value in args:
        # What is not found may be printed, in the message of an error.
        printed_size(bounded(value))
    if args and isinstance(owner, SEQUENCES):
        bounded(owner)
    return args


def _check_text_method(
    owner: str | bytes | int, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    if name == "join" and args:
        return (check_join(owner, args[0]), *args[1:])
    if name in _METHODS:
        _METHODS[name](owner, *args, **kwargs)
        for value in kwargs.values():
            check_padding(owner, value)
    return args
