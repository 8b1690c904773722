"""The Jinja2 environment of chat templates: Transformers' functions and filters, and limits.

What offers no hook is rewritten into filters when a template is parsed: `rewrite.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from edgellm.chat import rewrite
from edgellm.chat.budget import Ticking, bounded, check_chars, current_budget
from edgellm.chat.filters import check_filter
from edgellm.chat.formats import check_braces, check_date
from edgellm.chat.guards import (
    check_join,
    check_method,
    check_operator,
    check_padding,
)
from edgellm.chat.printing import printed_size


class RefusedError(Exception):
    """The template called `raise_exception`; the message is its own."""


class _Namespace(Namespace):
    """Does not print what it holds: that may be itself, or two others that hold two others each."""

    def __repr__(self) -> str:
        return "<Namespace>"


class GenerationBlocks(Extension):
    """`{% generation %}...{% endgeneration %}`, which only matters when training: its body."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles chat templates; each rendering needs a budget (`start_budget`)."""

    intercepted_binops = frozenset({"+", "-", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationBlocks],
            finalize=_printable,
            cache_size=0,
        )
        self.concat = _concat  # type: ignore[method-assign]
        # Through the class itself, `dict.update(message, ...)` would change what nobody may change.
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now, dict=_dict)
        self.globals["namespace"] = _Namespace
        # Makes text of any length out of nothing, and no chat template needs it.
        del self.globals["lipsum"]
        del self.filters["urlize"]
        self.filters["tojson"] = tojson
        for name, function in self.filters.items():
            self.filters[name] = _guarded(name, function)
        self.tests = {name: _guarded_test(test) for name, test in self.tests.items()}  # type: ignore[arg-type]
        self.filters[rewrite.JOIN] = _guarded("concat", _concat)
        self.filters[rewrite.LOOP] = Ticking
        self.filters[rewrite.COMPARED] = _compared
        self.filters[rewrite.SEARCHED] = _searched
        self.filters[rewrite.MADE] = _made

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = rewrite.Rewriter().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = current_budget()
        budget.tick()
        safe_args = check_method(__obj, args, kwargs)
        return budget.charge_made(super().call(__context, __obj, *safe_args, **kwargs))

    def getitem(self, obj: Any, argument: Any) -> Any:
        current_budget().tick()
        printed_size(bounded(argument))
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_operator(operator, left, right)
        value = super().call_binop(context, operator, left, right)
        budget = current_budget()
        return budget.joined(left, right, value) if operator == "+" else budget.charge(value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        function = super().wrap_str_format(value)
        if function is None:
            return None

        def wrapper(*args: Any, **kwargs: Any) -> str:
            check_braces(value.__self__, [*args, *kwargs.values()])
            return function(*args, **kwargs)

        return wrapper


def _concat(items: Iterable[Any]) -> str:
    text = "".join(map(str, check_join("", items)))
    current_budget().charge(text)
    return text


def _compared(value: Any) -> Any:
    current_budget().tick()
    return bounded(value)


def _searched(value: Any) -> Any:
    """In a dict only the key is sought, which `_compared` has seen."""
    return value if isinstance(value, Mapping) else _compared(value)


def _made(value: Any) -> Any:
    return current_budget().charge(value)


def _printable(value: Any) -> Any:
    size = printed_size(value)
    current_budget().spend(64 if isinstance(value, str) else 64 + size)
    return value


def _leading(function: Callable[..., Any], context: Context) -> tuple[Any, ...]:
    """What Jinja2 passes to a filter or a test before its value."""
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", None)
    first: dict[str | None, Any] = {
        "context": context,
        "eval_context": context.eval_ctx,
        "environment": context.environment,
    }
    return (first[wants],) if wants in first else ()


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is checked before and charged after.

    Taking the context also keeps Jinja2 from evaluating it while compiling. What a filter would give bit by
    bit it gives at once: what comes later could neither be charged nor counted.
    """

    @pass_context
    def filter_(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = current_budget()
        budget.tick()
        safe = check_filter(context.environment, name, value, args, kwargs)
        made = function(*_leading(function, context), safe, *args, **kwargs)
        if isinstance(made, Iterator):
            return iter(budget.charge_made(list(Ticking(made))))
        return budget.charge_made(made)

    return filter_


def _guarded_test(function: Callable[..., Any]) -> Callable[..., Any]:
    """A test whose operands may be compared."""

    @pass_context
    def test(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        current_budget().tick()
        for operand in (value, *args) if args else ():
            printed_size(bounded(operand))
        return function(*_leading(function, context), value, *args, **kwargs)

    return test


def tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without the HTML escapes of Jinja2's own filter; arguments as of `json.dumps`."""
    if isinstance(indent, int | str):
        check_padding(value, (indent if isinstance(indent, int) else len(indent)) * 2**16)
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts, size = [], 0
    for part in Ticking(encoder.iterencode(value)):
        parts.append(part)
        size += len(part)
        check_chars(size)
    return "".join(parts)


def _dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


def _raise_exception(message: Any) -> None:
    printed_size(message)
    raise RefusedError(str(message))


def _strftime_now(format: str) -> str:  # noqa: A002 - templates may pass it by this name
    check_date(format)
    return datetime.now().strftime(format)
