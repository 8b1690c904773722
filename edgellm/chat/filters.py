"""What is checked before a filter runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import Environment
from jinja2.filters import make_multi_attrgetter

from edgellm.chat.budget import Ticking, bounded
from edgellm.chat.formats import check_percent
from edgellm.chat.guards import (
    check_join,
    check_lines,
    check_padding,
    check_replace,
    check_setting,
    check_strip,
)
from edgellm.chat.printing import printed_size

# Filters whose time grows faster than what they are given: that many characters are enough.
_MAX_SLOW = 2**14
# Filters that compare items, or make keys of them: which argument is the attribute that they compare by.
_KEYED = {"groupby": 0, "max": 1, "min": 1, "sort": 2, "unique": 1}
# These do not print what they are given.
_OF_LISTS = frozenset(
    {"attr", "batch", "concat", "count", "d", "default", "dictsort", "first", "groupby", "items", "join"}
    | {"last", "length", "list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "select"}
    | {"selectattr", "slice", "sort", "sum", "unique"}
)


def check_filter(
    environment: Environment, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Refuses what would make too much, or take too long; gives the value to filter."""
    for setting in (*args, *kwargs.values()):
        bounded(setting)
        printed_size(setting)
    if name == "join":
        return _joined(environment, value, *args, **kwargs)
    if name in _KEYED:
        return _keyed(environment, value, kwargs.get("attribute", (*args, None, None, None)[_KEYED[name]]))
    if name not in _OF_LISTS:
        size = printed_size(value)
        if name in _SLOW and size > _MAX_SLOW:
            raise TypeError(f"{name} is given {size} characters, more than {_MAX_SLOW}")
    if name in _CHECKS:
        _CHECKS[name](value, *args, **kwargs)
    return value


def _joined(environment: Environment, value: Any, d: Any = "", attribute: Any = None) -> list[Any]:
    items = list(Ticking(value))
    if attribute is not None:
        check_join(str(d), _attributes(environment, items, attribute))
        return items
    return check_join(str(d), items)


def _keyed(environment: Environment, value: Any, attribute: Any) -> list[Any]:
    """The items, of which what is compared is not too large; texts are copied for it, in lower case."""
    items = list(Ticking(value))
    keys = items if attribute is None else _attributes(environment, items, attribute)
    printed_size(bounded(keys))
    return items


def _attributes(environment: Environment, items: list[Any], attribute: Any) -> list[Any]:
    return list(map(make_multi_attrgetter(environment, attribute), Ticking(items)))


def _check_format(value: Any, *args: Any, **kwargs: Any) -> None:
    check_percent(value, [*args, *kwargs.values()])


def _check_lines(value: Any, *args: Any, **kwargs: Any) -> None:
    for width in (*args, *kwargs.values()):
        check_lines(str(value), width)


def _check_padding(value: Any, *args: Any, **kwargs: Any) -> None:
    for width in (*args, *kwargs.values()):
        check_padding(value, width)


def _check_settings(value: Any, *args: Any, **kwargs: Any) -> None:
    for count in (*args, *kwargs.values()):
        check_setting(count)


def _check_sorting(value: Any, *_: Any, **__: Any) -> None:
    printed_size(value)


def _check_sum(value: Any, attribute: Any = None, start: Any = 0) -> None:
    if not isinstance(start, int | float):
        raise TypeError("sum() adds numbers only")


def _check_replace(value: Any, *args: Any, **kwargs: Any) -> None:
    check_replace(str(value), *args, **kwargs)


_SLOW = frozenset({"pprint", "striptags", "wordwrap"})
_CHECKS: dict[str, Callable[..., None]] = {
    "batch": _check_settings,
    "center": _check_padding,
    "dictsort": _check_sorting,
    "format": _check_format,
    "indent": _check_lines,
    "replace": _check_replace,
    "round": _check_settings,
    "slice": _check_settings,
    "sum": _check_sum,
    "trim": check_strip,
    "wordwrap": _check_lines,
}
