"""Fusions say what may be computed together, and leave alone what may not."""

from types import SimpleNamespace

import pytest

from edgellm.graph import Builder, ops
from edgellm.graph.graph import O
from edgellm.graph.ops import RopeConfig
from edgellm.graph.passes import (
    Project,
    RopeAttention,
    fuse_residual,
    fuse_rope,
    merge_projections,
    select_early,
)

ROPE = RopeConfig(4, 10000.0)


@pytest.fixture
def g():
    shapes = {"token_embd.weight": (10, 8)} | {f"{name}.weight": (8, 8) for name in "abcd"}
    return Builder({name: SimpleNamespace(shape=shape) for name, shape in shapes.items()})


@pytest.fixture
def x(g):
    return g.embed("token_embd", 8)


def same(weight):
    return "one kind"


def names(node):
    return [weight.name for weight in node.weights if weight]


def test_products_of_one_input_become_one(g, x):
    a, b = g.linear(x, "a").reshape(2, 4), g.linear(x, "b")
    (_, project, _) = merge_projections(g.graph.nodes, same)
    assert isinstance(project.op, Project)
    assert names(project) == ["a.weight", "b.weight"]
    assert project.outputs[1] is b
    assert a.shape[1:] == (2, 4)


def test_other_inputs_and_other_kinds_stay_apart(g, x):
    y = g.linear(x, "a")
    g.linear(y, "b")
    assert [names(n) for n in merge_projections(g.graph.nodes, same)[1:]] == [["a.weight"], ["b.weight"]]
    g.linear(y, "c")
    apart = merge_projections(g.graph.nodes, lambda weight: weight.name)
    assert [names(n) for n in apart[1:]] == [["a.weight"], ["b.weight"], ["c.weight"]]


@pytest.mark.parametrize("swapped", [False, True])
def test_a_residual_is_added_where_the_product_is_written(g, x, swapped):
    product = g.linear(x, "a")
    total = g.add(product, x) if swapped else g.add(x, product)
    (_, fused) = fuse_residual(merge_projections(g.graph.nodes, same))
    assert fused.op == Project(residual=True)
    assert fused.inputs == (x, x)
    assert fused.outputs == (total,)


def test_a_product_that_others_read_stays(g, x):
    product = g.linear(x, "a")
    g.add(x, product)
    g.activation(product, "silu")
    kinds = [type(node.op) for node in fuse_residual(merge_projections(g.graph.nodes, same))]
    assert kinds == [ops.Embed, Project, ops.Add, ops.Activation]


def test_a_residual_that_comes_later_stays(g, x):
    product = g.linear(x, "a")
    later = g.activation(x, "silu")
    g.add(later, product)
    kinds = [type(node.op) for node in fuse_residual(merge_projections(g.graph.nodes, same))]
    assert kinds == [ops.Embed, Project, ops.Activation, ops.Add]


def test_rope_joins_attention(g, x):
    q, k, v = (g.linear(x, name).reshape(2, 4) for name in "abc")
    g.attention(g.rope(q, ROPE), g.rope(k, ROPE), v, scale=0.5)
    *rest, last = fuse_rope(g.graph.nodes)
    assert last.op == RopeAttention(ops.Attention(0, 0.5, 4), ROPE)
    assert last.inputs == (q, k, v)
    assert not any(isinstance(node.op, ops.Rope) for node in rest)


def test_different_ropes_stay(g, x):
    q, k, v = (g.linear(x, name).reshape(2, 4) for name in "abc")
    g.attention(g.rope(q, ROPE), g.rope(k, RopeConfig(2, 10000.0)), v, scale=0.5)
    *rest, last = fuse_rope(g.graph.nodes)
    assert last.op == RopeAttention(ops.Attention(0, 0.5, 4), None)
    assert sum(isinstance(node.op, ops.Rope) for node in rest) == 2


def layer(g, x):
    """Attention, then a product, each added to x."""
    q, k, v = (g.linear(x, name).reshape(2, 4) for name in "abc")
    x = x + g.linear(g.attention(q, k, v, scale=0.5), "d")
    return x + g.linear(g.rms_norm(x, None, 1e-5), "a")


def test_after_the_last_attention_only_output_rows_go_on(g, x):
    out = g.select_rows(layer(g, layer(g, x)))
    nodes = select_early(g.graph.nodes)
    last = max(i for i, node in enumerate(nodes) if isinstance(node.op, ops.Attention))
    selects = [node for node in nodes if isinstance(node.op, ops.SelectRows)]
    assert len(selects) == 2  # of what was attended to, and of what the layer began with
    assert nodes[-1].outputs == (out,)
    for i, node in enumerate(nodes):
        rows = O if i > last or node in selects else node.outputs[0].shape[0]
        assert all(v.shape[0] is rows for v in node.outputs)
    assert [type(n.op) for n in nodes if n not in selects] == [type(n.op) for n in g.graph.nodes[:-1]]
    made = set()
    for node in nodes:
        assert made.issuperset(node.inputs)
        made.update(node.outputs)


def test_rows_that_a_later_attention_reads_are_all_made(g, x):
    y = g.activation(x, "silu")
    q = y.reshape(2, 4)
    g.select_rows(g.linear(y, "a"))
    g.attention(q, q, q, scale=0.5)
    nodes = select_early(g.graph.nodes)
    kinds = [ops.Embed, ops.Activation, ops.SelectRows, ops.Reshape, ops.MatMul, ops.Attention]
    assert [type(node.op) for node in nodes] == kinds


def test_without_a_selection_nothing_changes(g, x):
    layer(g, x)
    assert select_early(g.graph.nodes) == g.graph.nodes
