"""What Jinja2 offers no hook for, rewritten into filters when a template is parsed.

for x in y      ->  for x in y|loop(cost)
a ~ b           ->  [a, b]|join
a == b          ->  a|compared == b|compared
a in b          ->  a|compared in b|searched
[a, b]  x[1:]   ->  [a, b]|made  x[1:]|made
{a: b}          ->  {a|compared: b}|made
"""

from __future__ import annotations

from typing import Any, TypeVar

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

LOOP, JOIN, COMPARED, SEARCHED, MADE = (
    f"edgellm.{name}" for name in ("loop", "join", "compared", "searched", "made")
)
_NODE_BYTES = 8  # of memory that a node may need in each iteration: a place in a list of output
_ITERATION_BYTES = 64
_FEW = 64
_Literal = TypeVar("_Literal", nodes.List, nodes.Tuple, nodes.Dict)


class Rewriter(NodeTransformer):
    """Puts the filters in."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        size = sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        cost = _ITERATION_BYTES + _NODE_BYTES * size
        node.iter = _filter(node.iter, LOOP, cost)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno, environment=node.environment), JOIN)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _unless_constant(node.expr, COMPARED)
        for operand in node.ops:
            operand.expr = _unless_constant(operand.expr, SEARCHED if "in" in operand.op else COMPARED)
        return node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._literal(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        # Others stand where names are given to values.
        return self._literal(node, node.items) if node.ctx == "load" else self.generic_visit(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        items = [part for pair in node.items for part in (pair.key, pair.value)]
        made = self._literal(node, items)
        for pair in node.items:
            pair.key = _unless_constant(pair.key, COMPARED)
        return made

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, MADE) if isinstance(node.arg, nodes.Slice) else node

    def _literal(self, node: _Literal, items: list[nodes.Expr]) -> nodes.Node:
        if len(items) <= _FEW and all(isinstance(item, nodes.Const) for item in items):
            return node
        self.generic_visit(node)
        return _filter(node, MADE)


def _unless_constant(node: nodes.Expr, name: str) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, name)


def _filter(node: nodes.Expr, name: str, *args: int) -> nodes.Filter:
    where: Any = {"lineno": node.lineno, "environment": node.environment}
    return nodes.Filter(node, name, [nodes.Const(arg, **where) for arg in args], [], None, None, **where)
