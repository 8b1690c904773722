"""The oracle's ops against plain twins and hand-made numbers, whole and cut into steps."""

from dataclasses import replace

import numpy as np
import pytest
from naive import (
    naive_attention,
    naive_delta_rule,
    naive_route,
    naive_short_conv,
    naive_state_space,
)
from support import nmse
from tiny import tiny_llama

from edgellm import models
from edgellm.backends.base import BackendConfig, Batch, SequenceRows
from edgellm.backends.reference import ReferenceBackend
from edgellm.backends.reference.pointwise import activate
from edgellm.backends.reference.step import OPS
from edgellm.gguf import TensorType, open_gguf, write_gguf
from edgellm.graph import Builder, ops

CONFIG = BackendConfig(kv_type="f32", num_pages=6, num_slots=3)
TOKENS = 12
LIMIT = 1e-11


@pytest.fixture
def rng():
    return np.random.default_rng(17)


class Bench:
    """Runs a graph of a few ops whose inputs are rows of tables, looked up by token id."""

    def __init__(self, path):
        self.path = path

    def run(self, tables, weights, build, cuts=(TOKENS,)):
        """`tables` [TOKENS, D] become the values that `build(g, *values)` makes its result of."""
        tensors = {f"table{i}.weight": table for i, table in enumerate(tables)} | weights
        write_gguf(self.path, "bench", {}, {name: np.asarray(t, np.float32) for name, t in tensors.items()})
        with open_gguf(self.path) as file:
            g = Builder(file.tensors)
            values = [g.embed(f"table{i}") for i in range(len(tables))]
            out = build(g, *values)
            graph = g.finish(out, vocab_size=TOKENS, context_length=64)
            backend = ReferenceBackend(graph, file, CONFIG)
        start, outputs = 0, []
        for count in cuts:
            rows = SequenceRows(0, count, start, [4, 2], 1, 1)
            outputs.append(backend.execute(Batch(range(start, start + count), [rows], range(count))).copy())
            start += count
        return np.concatenate(outputs)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "bench.gguf")


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def test_every_op_is_implemented():
    kinds = {kind for kind in vars(ops).values() if isinstance(kind, type) and issubclass(kind, ops.Op)}
    assert kinds - {ops.Op} == {kind for kind in OPS if kind.__module__ == ops.__name__}


@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        ("silu", 1.0, 0.7310585786),
        ("silu", -2.0, -0.2384058440),
        ("gelu", 1.0, 0.8413447461),
        ("gelu_tanh", 1.0, 0.8411919906),
        ("relu", -3.0, 0.0),
        ("relu2", 3.0, 9.0),
        ("sigmoid", 0.0, 0.5),
        ("sigmoid", -1000.0, 0.0),
        ("softplus", 0.0, 0.6931471806),
        ("softplus", 1000.0, 1000.0),
        ("tanh", 0.5, 0.4621171573),
    ],
)
def test_activations(kind, at, value):
    got = activate(kind, np.array([at], np.float32))
    assert got.dtype == np.float32
    assert got[0] == pytest.approx(value, rel=1e-6)


def test_each_head_goes_through_its_own_matrix(rng, bench):
    x, w = normal(rng, TOKENS, 3 * 4), normal(rng, 3, 5, 4)
    got = bench.run([x], {"w.weight": w}, lambda g, x: g.head_linear(x.reshape(3, 4), "w", 5))
    want = [[w[h] @ row.reshape(3, 4)[h] for h in range(3)] for row in x]
    assert nmse(got, np.array(want)) < LIMIT


@pytest.mark.parametrize(("tile", "order"), [(False, [0, 0, 1, 1]), (True, [0, 1, 0, 1])])
def test_repeated_heads(rng, bench, tile, order):
    x = normal(rng, TOKENS, 2 * 3)
    got = bench.run([x], {}, lambda g, x: g.repeat_heads(x.reshape(2, 3), 4, tile))
    assert np.array_equal(got, x.reshape(TOKENS, 2, 3)[:, order])


def test_norms(rng, bench):
    x = normal(rng, TOKENS, 2 * 4)
    weight = normal(rng, 2, 4)
    got = bench.run([x], {"n.weight": weight}, lambda g, x: g.rms_norm(x.reshape(2, 4), "n", 1e-5))
    heads = x.reshape(TOKENS, 2, 4)
    assert nmse(got, heads / np.sqrt((heads**2).mean(-1, keepdims=True) + 1e-5) * weight) < LIMIT
    got = bench.run([x], {}, lambda g, x: g.l2_norm(x.reshape(2, 4), 1e-6))
    assert np.allclose(np.linalg.norm(got, axis=-1), 1)
    got = bench.run([0 * x], {}, lambda g, x: g.l2_norm(x, 1e-6))
    assert np.array_equal(got, 0 * x)


@pytest.mark.parametrize("cuts", [(TOKENS,), (5, 1, 6)])
@pytest.mark.parametrize(
    "options", [{}, {"window": 3}, {"softcap": 2.0}, {"sinks": True}, {"latent": True}], ids=str
)
def test_attention(rng, bench, cuts, options):
    heads, kv_heads, dim = 4, 2, 8
    q, k, v = (
        normal(rng, TOKENS, heads * dim),
        normal(rng, TOKENS, kv_heads * dim),
        normal(rng, TOKENS, 2 * 6),
    )
    sinks, softcap, window = normal(rng, heads), options.get("softcap", 0.0), options.get("window", 0)
    latent = "latent" in options

    def build(g, q, k, v):
        return g.attention(
            q.reshape(heads, dim), k.reshape(kv_heads, dim), None if latent else v.reshape(kv_heads, 6),
            scale=0.3, value_dim=5, window=window, softcap=softcap,
            sinks=g.weight("sinks", heads) if "sinks" in options else None,
        )  # fmt: skip

    got = bench.run([q, k, v], {"sinks.weight": sinks}, build, cuts)
    for t in range(TOKENS):
        first = max(0, t - window + 1) if window else 0
        for h in range(heads):
            query = q[t].reshape(heads, dim)[h].astype(np.float64)
            keys = k.reshape(TOKENS, kv_heads, dim)[: t + 1, h // 2].astype(np.float64)
            values = keys[:, :5] if latent else v.reshape(TOKENS, kv_heads, 6)[: t + 1, h // 2]
            if softcap:  # as scores of one dimension
                keys = softcap * np.tanh(keys @ query * 0.3 / softcap)[:, None] / 0.3
                query = np.ones(1)
            if "sinks" in options:  # as one more key without a value
                keys, values = np.pad(keys, ((0, 1), (0, 1))), np.pad(values, ((0, 1), (0, 0)))
                keys[-1, -1], query = sinks[h] / 0.3, np.append(query, 1.0)
            want = naive_attention(query, keys, values, 0.3, first)
            assert np.allclose(got[t, h], want, atol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("gating", ["softmax", "sigmoid", "softmax_weight"])
@pytest.mark.parametrize("groups", [(1, 1), (4, 2)])
@pytest.mark.parametrize("bias", [False, True])
def test_routing(rng, bench, gating, normalize, groups, bias):
    scores, offset = normal(rng, TOKENS, 8), normal(rng, 8)
    route = ops.Route(3, gating, normalize, 1.5, *groups)
    weights = {"b": offset} if bias else {}
    args = (gating, normalize, 1.5, offset if bias else None, *groups)
    want = [naive_route(row.astype(float), 3, *args) for row in scores]
    ids = bench.run([scores], weights, lambda g, x: g.route(x, route, g.optional("b", 8))[0])
    shares = bench.run([scores], weights, lambda g, x: g.route(x, route, g.optional("b", 8))[1])
    assert np.array_equal(ids, [row[0] for row in want])
    assert np.allclose(shares, [row[1] for row in want], atol=1e-5)


def test_equal_scores_choose_the_lower_expert(bench):
    got = bench.run([np.ones((TOKENS, 5))], {}, lambda g, x: g.route(x, ops.Route(2))[0])
    assert np.array_equal(got, np.tile([0, 1], (TOKENS, 1)))


def test_experts_compute_what_they_would_alone(rng, bench):
    scores, x, w = normal(rng, TOKENS, 4), normal(rng, TOKENS, 6), normal(rng, 4, 5, 6)

    def build(g, scores, x):
        ids, weights = g.route(scores, ops.Route(2))
        return g.expert_sum(g.expert_linear(x, ids, "w", 4), weights)

    got = bench.run([scores, x], {"w.weight": w}, build)
    for t in range(TOKENS):
        ids, weights = naive_route(scores[t].astype(float), 2, "softmax", True, 1.0)
        want = sum(weight * (w[i] @ x[t]) for i, weight in zip(ids, weights, strict=True))
        assert np.allclose(got[t], want, atol=1e-5)


@pytest.mark.parametrize("cuts", [(TOKENS,), (1, 2, 9), (1,) * TOKENS])
def test_short_conv(rng, bench, cuts):
    x, w, b = normal(rng, TOKENS, 5), normal(rng, 5, 4), normal(rng, 5)
    got = bench.run(
        [x], {"w": w, "b": b}, lambda g, x: g.short_conv(x, g.weight("w", 5, 4), g.weight("b", 5)), cuts
    )
    assert nmse(got, naive_short_conv(x, w, b)) < LIMIT


@pytest.mark.parametrize("cuts", [(TOKENS,), (5, 1, 6)])
def test_delta_rule(rng, bench, cuts):
    heads, dk, dv = 2, 4, 3
    q, k, v = (
        normal(rng, TOKENS, heads * dk),
        normal(rng, TOKENS, heads * dk),
        normal(rng, TOKENS, heads * dv),
    )
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    decay, beta = -np.abs(normal(rng, TOKENS, heads)), np.abs(normal(rng, TOKENS, heads)) % 1

    def build(g, q, k, v, decay, beta):
        return g.delta_rule(q.reshape(2, dk), k.reshape(2, dk), v.reshape(2, dv), decay, beta, 0.5)

    got = bench.run([q, k, v, decay, beta], {}, build, cuts)
    for h in range(heads):
        parts = (x.reshape(TOKENS, heads, -1)[:, h].astype(np.float64) for x in (q, k, v))
        want = naive_delta_rule(*parts, decay[:, h].astype(float), beta[:, h].astype(float), 0.5)
        assert nmse(got[:, h], want) < LIMIT


@pytest.mark.parametrize("cuts", [(TOKENS,), (5, 1, 6)])
def test_state_space_scan(rng, bench, cuts):
    heads, dim, groups, state = 4, 3, 2, 5
    x, dt = normal(rng, TOKENS, heads * dim), np.abs(normal(rng, TOKENS, heads))
    b, c = normal(rng, TOKENS, groups * state), normal(rng, TOKENS, groups * state)
    a, d = -np.abs(normal(rng, heads)), normal(rng, heads)

    def build(g, x, dt, b, c):
        b, c = b.reshape(groups, state), c.reshape(groups, state)
        return g.state_space_scan(x.reshape(heads, dim), dt, b, c, g.vector("a", heads), g.vector("d", heads))

    got = bench.run([x, dt, b, c], {"a": a[:, None], "d": d}, build, cuts)
    for h in range(heads):
        mine = x.reshape(TOKENS, heads, dim)[:, h]
        shared = (y.reshape(TOKENS, groups, state)[:, h // 2].astype(float) for y in (b, c))
        want = naive_state_space(mine, dt[:, h].astype(float), *shared, float(a[h]), float(d[h]))
        assert nmse(got[:, h], want) < LIMIT


@pytest.mark.parametrize("kind", ["mean", "first", "last"])
def test_pooling_keeps_texts_apart(rng, tmp_path, kind):
    table = normal(rng, TOKENS, 4)
    write_gguf(tmp_path / "pool.gguf", "bench", {}, {"table.weight": table})
    with open_gguf(tmp_path / "pool.gguf") as file:
        g = Builder(file.tensors)
        graph = g.finish(g.pool(g.embed("table"), kind), vocab_size=TOKENS, context_length=8, causal=False)
        backend = ReferenceBackend(graph, file, CONFIG)
    got = backend.execute(
        Batch([0, 1, 2, 3, 4], [SequenceRows(0, 3, 0, [0]), SequenceRows(3, 2, 0, [1])], [])
    )
    rows = {"mean": (table[:3].mean(0), table[3:5].mean(0)), "first": table[[0, 3]], "last": table[[2, 4]]}[
        kind
    ]
    assert np.allclose(got, np.stack(list(rows)), atol=1e-6)


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0", ("q8_0", "f16")])
def test_it_needs_what_it_holds(tmp_path, kv_type):
    path = tiny_llama(tmp_path / "small.gguf", default=TensorType.Q4_0)
    config = replace(CONFIG, kv_type=kv_type, low_memory=True)
    with open_gguf(path) as file:
        graph = models.build(file)
        weights, page = ReferenceBackend.needs(graph, file, config)
        held = ReferenceBackend(graph, file, config).memory()
    assert (weights, page * config.num_pages) == (held["weights"], held["kv_cache"])


def test_pages_can_be_copied(rng, tmp_path):
    write_gguf(tmp_path / "copy.gguf", "bench", {}, {"table.weight": normal(rng, TOKENS, 4)})
    with open_gguf(tmp_path / "copy.gguf") as file:
        g = Builder(file.tensors)
        heads = g.embed("table").reshape(1, 4)
        graph = g.finish(g.attention(heads, heads, heads, scale=0.5), vocab_size=TOKENS, context_length=64)
        backend = ReferenceBackend(graph, file, CONFIG)
    backend.execute(Batch(range(6), [SequenceRows(0, 6, 0, [3])], [5]))
    backend.copy_page(3, 1)
    original = backend.execute(Batch([7], [SequenceRows(0, 1, 6, [3])], [0])).copy()
    copy = backend.execute(Batch([7], [SequenceRows(0, 1, 6, [1])], [0]))
    assert np.array_equal(original, copy)
    assert backend.memory()["kv_cache"] > 0
