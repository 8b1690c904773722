"""What the builder refuses: tensors that are not there or do not fit, and shapes that do not go together."""

from types import SimpleNamespace

import pytest

from edgellm.errors import FormatError
from edgellm.graph import Builder, O, T
from edgellm.graph.ops import RopeConfig, Route


@pytest.fixture
def g():
    shapes = {
        "token_embd.weight": (10, 8),
        "w.weight": (6, 8),
        "w.bias": (6,),
        "row.weight": (8,),
        "odd.weight": (1, 1, 6, 8),
        "column": (2, 1),
        "experts.weight": (4, 6, 8),
        "kernel.weight": (8, 1),
    }
    return Builder({name: SimpleNamespace(shape=shape) for name, shape in shapes.items()})


@pytest.fixture
def x(g):
    return g.embed("token_embd", 8)


def test_shapes_are_those_of_the_ops(g, x):
    y = g.linear(x, "w", 6)
    assert y.shape == (T, 6)
    assert y.reshape(2, 3).shape == (T, 2, 3)
    assert y.reshape(2, 3).slice(1, 3).shape == (T, 2, 2)
    assert g.concat(x, y).shape == (T, 14)
    assert g.select_rows(x).shape == (O, 8)
    assert g.repeat_heads(y.reshape(2, 3), 6).shape == (T, 6, 3)


def test_a_bias_joins_where_the_file_has_one(g, x):
    weights = g.linear(x, "w").builder.graph.nodes[-1].weights
    assert [w.name for w in weights] == ["w.weight", "w.bias"]
    g.linear(x, "odd", 6)
    assert g.graph.nodes[-1].weights[1] is None


def test_leading_ones_do_not_count(g):
    assert g.weight("row", 1, 8).shape == (1, 8)
    assert g.weight("odd", 6, 8).shape == (6, 8)
    assert g.vector("column", 2).shape == (2,)
    with pytest.raises(FormatError, match="2x1"):
        g.weight("column", 2)


def test_every_weight_is_counted_once(g, x):
    g.linear(x, "w")
    g.linear(x, "w")
    assert set(g.graph.weights()) == {"token_embd.weight", "w.weight", "w.bias"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g, x: g.linear(x, "nope"), "no tensor 'nope.weight'"),
        (lambda g, x: g.linear(x, "w", 7), "shape 6x8; .* need 7x8"),
        (lambda g, x: g.weight("experts", 4, 6), "shape 4x6x8; .* need 4x6"),
        (lambda g, x: g.vector("row", 9), "shape 8; .* need 9"),
        (lambda g, x: x.reshape(3, 3), r"\[8\] cannot be seen as \[3, 3\]"),
        (lambda g, x: x.slice(4, 9), "no columns 4 to 9 in rows of 8"),
        (
            lambda g, x: g.rope(x.reshape(2, 4), RopeConfig(6, 10000.0)),
            "6 dimensions does not fit heads of 4",
        ),
        (lambda g, x: g.rope(x.reshape(2, 4), RopeConfig(3, 10000.0)), "3 dimensions"),
        (lambda g, x: g.rope(x.reshape(2, 4), RopeConfig(4, 1e4), g.weight("w.bias", 6)), "needs 2 factors"),
        (
            lambda g, x: g.attention(x.reshape(4, 2), g.linear(x, "w").reshape(3, 2), None, scale=1.0),
            "4 heads of 2 cannot attend to 3 heads of 2",
        ),
        (lambda g, x: g.route(x, Route(9)), "9 experts are to be used of 8"),
        (lambda g, x: g.route(x, Route(2, groups=3)), "3 groups"),
        (
            lambda g, x: g.route(x, Route(3, groups=4, groups_used=1)),
            "3 of 8 experts cannot be chosen from 1",
        ),
        (lambda g, x: g.add(x, g.linear(x, "w")), r"\[6\] do not go with rows of \[8\]"),
        (lambda g, x: g.repeat_heads(x.reshape(4, 2), 6), "4 heads cannot serve 6"),
        (lambda g, x: g.short_conv(x, g.weight("kernel", 8, 1)), "over at least 2 tokens"),
        (lambda g, x: g.embed_by("positions", "token_embd", 8, 11), "10 rows; at least 11"),
    ],
)
def test_what_does_not_fit(g, x, wrong, message):
    with pytest.raises(FormatError, match=message):
        wrong(g, x)
