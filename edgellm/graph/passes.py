"""Passes over a graph: fusions that a backend may ask for, so that model files can stay like the paper.

Each takes and gives a list of nodes in order, and changes no bit of any result: it only says that
several nodes may be computed together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from edgellm.graph import ops
from edgellm.graph.graph import Node, O, Value, Weight

# What is made of a row comes from that row alone.
_ROW_BY_ROW = (
    ops.Activation,
    ops.Add,
    ops.Concat,
    ops.ExpertMatMul,
    ops.ExpertSum,
    ops.Glu,
    ops.HeadMatMul,
    ops.L2Norm,
    ops.LayerNorm,
    ops.MatMul,
    ops.Mul,
    ops.RepeatHeads,
    ops.Reshape,
    ops.RMSNorm,
    ops.Route,
    ops.Scale,
    ops.Slice,
    ops.Softcap,
)


@dataclass(frozen=True)
class Project(ops.Op):
    """`x, residual? | weight, bias?, weight, bias?, ...` -> each x @ weight.T + bias (+ residual)."""

    residual: bool = False


@dataclass(frozen=True)
class RopeAttention(ops.Op):
    """`q, k, v | sinks?, factors?` -> attention of q and k turned by `rope`."""

    attention: ops.Attention
    rope: ops.RopeConfig | None


def uses(nodes: list[Node]) -> Counter[Value]:
    """How many nodes read each value."""
    return Counter(v for node in nodes for v in node.inputs)


def select_early(nodes: list[Node]) -> list[Node]:
    """Output rows are selected as soon as nobody reads the others any more: in a transformer, when its last
    layer has attended.
    """
    selects = [node for node in nodes if isinstance(node.op, ops.SelectRows)]
    if len(selects) != 1:
        return nodes
    readers: dict[Value, set[Node]] = {v: set() for node in nodes for v in node.outputs}
    for node in nodes:
        for v in node.inputs:
            readers[v].add(node)
    late = set(selects)
    for node in reversed(nodes):
        if isinstance(node.op, _ROW_BY_ROW) and all(readers[v] and readers[v] <= late for v in node.outputs):
            late.add(node)
    selected = {selects[0].inputs[0]: selects[0].outputs[0]}
    made: list[Node] = []
    for node in nodes:
        if node not in late:
            made.append(node)
            for v in node.outputs:
                if not readers[v].isdisjoint(late):
                    made.append(Node(ops.SelectRows(), (v,), (), (selected.setdefault(v, _selected(v)),)))
        elif node not in selects:
            inputs = tuple(selected[v] for v in node.inputs)
            outputs = tuple(selected.setdefault(v, _selected(v)) for v in node.outputs)
            made.append(Node(node.op, inputs, node.weights, outputs))
    return made


def _selected(value: Value) -> Value:
    return value.builder.value((O, *value.shape[1:]), value.dtype)


def merge_projections(nodes: list[Node], kind: Callable[[Weight], object]) -> list[Node]:
    """Runs of matmuls of one input, whose weights are of one kind, become one Project (q, k, v; gate, up)."""
    merged: list[Node] = []
    for node in nodes:
        if not isinstance(node.op, ops.MatMul):
            merged.append(node)
            continue
        last = _project_to_join(merged, node, kind)
        if last is None:
            merged.append(Node(Project(), node.inputs, node.weights, node.outputs))
        else:
            previous = merged[last]
            merged[last] = Node(
                Project(), node.inputs, previous.weights + node.weights, previous.outputs + node.outputs
            )
    return merged


def _project_to_join(merged: list[Node], node: Node, kind: Callable[[Weight], object]) -> int | None:
    """The place of an earlier Project that `node` can join, with only views of its results between them."""
    weight = node.weights[0]
    assert weight is not None
    for at in range(len(merged) - 1, -1, -1):
        other = merged[at]
        if isinstance(other.op, Project):
            first = other.weights[0]
            assert first is not None
            return at if other.inputs == node.inputs and kind(first) == kind(weight) else None
        if not isinstance(other.op, ops.Reshape | ops.Slice):
            return None
    return None


def fuse_residual(nodes: list[Node]) -> list[Node]:
    """add(x, project(y)) becomes a Project that adds x as it writes, where nobody else reads the product."""
    readers = uses(nodes)
    made_by = {v: node for node in nodes for v in node.outputs}
    replaced: dict[Node, Node] = {}
    dropped: set[Node] = set()
    for node in nodes:
        if not isinstance(node.op, ops.Add) or len(node.inputs) != 2:
            continue
        for product, other in (node.inputs[::-1], node.inputs):
            source = made_by.get(product)
            if (
                source is not None
                and source not in replaced
                and isinstance(source.op, Project)
                and len(source.outputs) == 1
                and readers[product] == 1
                and other.shape == product.shape
                and _before(nodes, made_by.get(other), source)
            ):
                fused = Node(Project(True), (*source.inputs, other), source.weights, node.outputs)
                replaced[source] = fused
                dropped.add(node)
                break
    return [replaced.get(node, node) for node in nodes if node not in dropped]


def _before(nodes: list[Node], first: Node | None, second: Node) -> bool:
    return first is None or nodes.index(first) < nodes.index(second)


def fuse_rope(nodes: list[Node]) -> list[Node]:
    """Rope on q and k joins the attention that alone reads them."""
    readers = uses(nodes)
    made_by = {v: node for node in nodes for v in node.outputs}
    dropped: set[Node] = set()
    fused: list[Node] = []
    for node in nodes:
        if isinstance(node.op, ops.Attention):
            turned = [made_by.get(v) for v in node.inputs[:2]]
            node, gone = _with_rope(node, node.op, turned, readers)
            dropped |= gone
        fused.append(node)
    return [node for node in fused if node not in dropped]


def _with_rope(
    node: Node, op: ops.Attention, turned: list[Node | None], readers: Counter[Value]
) -> tuple[Node, set[Node]]:
    q, k = turned
    if (
        q is not None
        and k is not None
        and isinstance(q.op, ops.Rope)
        and isinstance(k.op, ops.Rope)
        and q.op == k.op
        and q.weights == k.weights
        and readers[node.inputs[0]] == readers[node.inputs[1]] == 1
    ):
        inputs = (*q.inputs, *k.inputs, *node.inputs[2:])
        weights = (*node.weights, *q.weights)
        return Node(RopeAttention(op, q.op.config), inputs, weights, node.outputs), {q, k}
    return Node(RopeAttention(op, None), node.inputs, (*node.weights, None), node.outputs), set()
