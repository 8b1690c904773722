"""The Jinja2 environment of chat templates: Transformers' functions and filters, and limits.

Loops and `~` offer no hook, so they are rewritten, when a template is parsed, into filters that do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context
from jinja2.visitor import NodeTransformer

from edgellm.chat.budget import Ticking, check_chars, current_budget, printed_size
from edgellm.chat.guards import (
    check_format,
    check_join,
    check_lines,
    check_method,
    check_operator,
    check_padding,
    check_replace,
)


class RefusedError(Exception):
    """The template called `raise_exception`; the message is its own."""


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

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationBlocks],
            finalize=_printable,
            cache_size=0,
        )
        self.concat = _concat  # type: ignore[method-assign]
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        # Makes text of any length out of nothing, and no chat template needs it.
        del self.globals["lipsum"]
        del self.filters["urlize"]
        self.filters["tojson"] = tojson
        for name, function in self.filters.items():
            self.filters[name] = _guarded(name, function)
        self.filters[_JOIN] = _guarded("concat", _concat)
        self.filters.update({_LOOP: Ticking, _MADE: _made})

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Rewriter().visit(super()._parse(source, name, filename))
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = current_budget()
        budget.tick()
        safe_args = check_method(__obj, args, kwargs)
        return budget.charge(super().call(__context, __obj, *safe_args, **kwargs))

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
            check_format(value.__self__, [*args, *kwargs.values()])
            return function(*args, **kwargs)

        return wrapper


_LOOP, _JOIN, _MADE = "edgellm.loop", "edgellm.join", "edgellm.made"


class _Rewriter(NodeTransformer):
    """`for x in y` -> `for x in y|loop`; `a ~ b` -> `[a, b]|join`; `[a, b]` -> `[a, b]|made`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filter(node.iter, _LOOP)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno, environment=node.environment), _JOIN)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _MADE)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _MADE)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, _MADE) if node.ctx == "load" else node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno, environment=node.environment)


def _concat(items: Iterable[Any]) -> str:
    text = "".join(map(str, check_join("", items)))
    current_budget().charge(text)
    return text


@pass_context
def _made(context: Context, value: Any) -> Any:
    """A container that the template has just written down. (The context keeps it from being folded.)"""
    return current_budget().charge(value)


def _printable(value: Any) -> Any:
    check_chars(printed_size(value))
    return value


_LINES = frozenset({"indent", "wordwrap"})
_PADDING = frozenset({"center", "batch", "slice", "round"})
# These do not print what they are given.
_OF_LISTS = frozenset(
    {"attr", "batch", "count", "d", "default", "dictsort", "first", "groupby", "items", "last", "length"}
    | {"list", "map", "max", "min", "random", "reject", "rejectattr", "reverse", "select", "selectattr"}
    | {"slice", "sort", "sum", "unique"}
)


def _check_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Before a filter; gives the value to filter."""
    if name not in _OF_LISTS and name not in ("join", "concat"):
        printed_size(value)
    if name == "replace":
        check_replace(str(value), *args, **kwargs)
    elif name in _LINES:
        for width in [*args, *kwargs.values()]:
            check_lines(str(value), width)
    elif name in _PADDING:
        for width in [*args, *kwargs.values()]:
            check_padding(value, width)
    elif name == "format":
        check_format(value, [*args, *kwargs.values()])
    elif name == "sum" and not isinstance(kwargs.get("start", args[1] if len(args) > 1 else 0), int | float):
        raise TypeError("sum() adds numbers only")
    elif name == "join":
        separator = str(kwargs.get("d", args[0] if args else ""))
        return check_join(separator, value)
    return value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is checked before and charged after.

    Taking the context also keeps Jinja2 from evaluating it while compiling.
    """
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    def filter_(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = current_budget()
        budget.tick()
        safe = _check_filter(name, value, args, kwargs)
        first: dict[str | None, Any] = {
            "context": context,
            "eval_context": context.eval_ctx,
            "environment": context.environment,
        }
        leading = (first[wants],) if wants in first else ()
        return budget.charge(function(*leading, safe, *args, **kwargs))

    return filter_


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
    for part in encoder.iterencode(value):
        parts.append(part)
        size += len(part)
        check_chars(size)
    return "".join(parts)


def _raise_exception(message: Any) -> None:
    raise RefusedError(str(message))


def _strftime_now(format: str) -> str:  # noqa: A002 - templates may pass it by this name
    check_format(format, [])
    return datetime.now().strftime(format)
