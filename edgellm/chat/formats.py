"""Checks before formatting: no computed or enormous widths, no flood of repetitions.

The three syntaxes are read as Python and the C library read them. What stands between their fields is only
copied, and may be anything, such as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from string import Formatter
from typing import Any

from edgellm.chat.budget import BudgetExceededError, Ticking, check_chars
from edgellm.chat.printing import printed_size
from edgellm.errors import shown

_FIELD = 330  # characters of the longest float
_NUMBER = re.compile(r"\d+")
_ENORMOUS = re.compile(r"\d{5,}")
_SHOWN = 40  # characters of a format in a message
# A key, flags, a width, a precision, and what the value becomes. Each match ends where Python reads on.
_PERCENT = re.compile(
    r"%(?:\([^()]*\))?(?P<spec>[-#0 +]*(?:[0-9]+|\*)?(?:\.(?:[0-9]+|\*)?)?)[hlL]?(?P<kind>.?)", re.DOTALL
)
# Flags and a width, and whether they go on with what may become digits, as %f does in Python (microseconds).
_DATE = re.compile(r"%(?P<spec>[-_+^#0-9]*)(?=(?P<next>%?))")


def check_percent(template: Any, arguments: Iterable[Any]) -> None:
    """Before `template % arguments`."""
    text = _text(template)
    _check(text, _percent_specs(text), arguments)


def check_braces(template: Any, arguments: Iterable[Any]) -> None:
    """Before `template.format(*arguments)`."""
    text = _text(template)
    _check(text, _brace_specs(text), arguments)


def check_date(template: Any) -> None:
    """Before `strftime(template)`."""
    text = _text(template)
    _check(text, _date_specs(text), ())


def _text(template: Any) -> str:
    printed_size(template)
    return template.decode("latin-1") if isinstance(template, bytes) else str(template)


def _percent_specs(text: str) -> Iterator[str]:
    for match in _PERCENT.finditer(text):
        if match["kind"] == "(":
            raise BudgetExceededError(
                f"the format {shown(text, _SHOWN)} has a key without an end, or with parentheses in it"
            )
        if "*" in match["spec"]:
            raise _refused(match["spec"], text, "computed")
        yield match["spec"]


def _brace_specs(text: str) -> Iterator[str | None]:
    """None for text without a field."""
    for _, name, spec, _ in Formatter().parse(text):
        if name is not None and spec and "{" in spec:
            raise _refused(spec, text, "computed")
        yield None if name is None else spec


def _date_specs(text: str) -> Iterator[str]:
    for match in _DATE.finditer(text):
        if match["spec"] and match["next"]:
            raise _refused(match["spec"], text, "computed")
        yield match["spec"]


def _check(text: str, specs: Iterable[str | None], arguments: Iterable[Any]) -> None:
    longest = max(map(printed_size, arguments), default=0)
    fields = widest = 0
    for spec in Ticking(specs):
        if spec is None:
            continue
        if _ENORMOUS.search(spec):
            raise BudgetExceededError(
                f"the width {shown(spec, _SHOWN)} in the format {shown(text, _SHOWN)} is over 9999"
            )
        fields += 1 + spec.count("%")  # a date has fields of its own in its spec
        widest = max(widest, *map(int, _NUMBER.findall(spec)), 0)
        check_chars(len(text) + fields * (longest + widest + _FIELD))


def _refused(spec: str, text: str, why: str) -> BudgetExceededError:
    return BudgetExceededError(
        f"the width {shown(spec, _SHOWN)} in the format {shown(text, _SHOWN)} is {why}"
    )
