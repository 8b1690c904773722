"""Widths in formats: what is computed or enormous is refused, and the text around them may be anything."""

from __future__ import annotations

import pytest

from edgellm.chat import formats
from edgellm.chat.budget import BudgetExceededError
from edgellm.chat.template import ChatTemplate

PLAIN = [
    """{{ '{"type": "function", "function": {"name": "%s"}}' % 'x' }}""",
    """{{ '{"a": {"name": "%s"}}'|format('x') }}""",
    """{{ '{{"name": "{}"}}'.format('x') }}""",
    """{{ 'up to %s of 32768 tokens' % 7 }}""",
    """{{ ('price 12345' ~ ' at {}').format('x') }}""",
    """{{ '%5.2f|%-8s|%%' % (1.5, 'x') }}""",
]


@pytest.mark.parametrize("source", PLAIN)
def test_what_stands_around_fields_may_be_anything(source):
    python = source.removeprefix("{{ ").removesuffix(" }}").replace(" ~ ", " + ").replace("|format(", " % (")
    assert ChatTemplate(source).render([{"role": "user", "content": "Hi"}]) == eval(python)


@pytest.mark.parametrize(
    ("check", "text", "says"),
    [
        (formats.check_percent, "%12345d", "over 9999"),
        (formats.check_percent, "%.12345f", "over 9999"),
        (formats.check_percent, "%*d", "computed"),
        (formats.check_percent, "%(a)*d", "computed"),
        (formats.check_percent, "%(a(b)s", "parentheses"),
        (formats.check_braces, "{:12345}", "over 9999"),
        (formats.check_braces, "{:{}}", "computed"),
        (formats.check_date, "%12345d", "over 9999"),
        (formats.check_date, "%9%f", "computed"),
    ],
)
def test_widths_that_are_refused(check, text, says):
    with pytest.raises(BudgetExceededError, match=says):
        check(text) if check is formats.check_date else check(text, [1])


def test_many_fields_of_long_arguments_are_too_much():
    with pytest.raises(BudgetExceededError):
        formats.check_percent("%s" * 10_000, ["x" * 100_000])
