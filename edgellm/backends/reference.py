"""The reference backend: walks the graph node by node in NumPy. Slow, and evidently right: the oracle.

Each op is one function `(step, node, *inputs) -> output`, registered by its class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgellm import quants
from edgellm.backends.base import PAGE_SIZE, Backend, BackendConfig, Batch, LoadProgress, WeightFile, positions_of
from edgellm.backends.rope import RopeTable
from edgellm.errors import UnsupportedError
from edgellm.graph import Graph, Node, Value, Weight, ops

Array = NDArray[Any]
F32 = NDArray[np.float32]
_OPS: dict[type[ops.Op], Callable[..., Array | tuple[Array, ...]]] = {}
_F = TypeVar("_F", bound=Callable[..., Any])


def _implements(op: type[ops.Op]) -> Callable[[_F], _F]:
    def register(function: _F) -> _F:
        _OPS[op] = function
        return function

    return register


class ReferenceBackend(Backend):
    """Runs any graph, keeping f32 keys, values and states."""

    def __init__(
        self, graph: Graph, file: WeightFile, config: BackendConfig, progress: LoadProgress | None = None
    ) -> None:
        super().__init__(graph, file, config)
        self._weights = {name: _dequantize(file, w) for name, w in graph.weights().items()}
        pages = (config.num_pages, PAGE_SIZE)
        dtype = {"f32": np.float32, "f16": np.float16}[config.kv_type]
        self.keys = [np.zeros((*pages, c.num_kv_heads, c.key_dim), dtype) for c in graph.caches]
        self.values = [np.zeros((*pages, c.num_kv_heads, c.value_dim), dtype) for c in graph.caches]
        self.states = [np.zeros((config.num_slots, *s.shape), np.float32) for s in graph.states]
        self.tables: dict[Node, RopeTable] = {}

    def execute(self, batch: Batch) -> F32:
        step = _Step(self, batch)
        for node in self.graph.nodes:
            function = _OPS.get(type(node.op))
            if function is None:
                raise UnsupportedError(f"the reference backend has no {type(node.op).__name__}")
            result = function(step, node, *(step.values[v] for v in node.inputs))
            for value, array in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True):
                step.values[value] = array
        assert self.graph.output is not None
        return np.ascontiguousarray(step.values[self.graph.output], np.float32)

    def weight(self, weight: Weight) -> F32:
        """A tensor, dequantized."""
        return self._weights[weight.name]

    def copy_page(self, source: int, target: int) -> None:
        for pool in (*self.keys, *self.values):
            pool[target] = pool[source]

    def copy_slot(self, source: int, target: int) -> None:
        for pool in self.states:
            pool[target] = pool[source]

    def memory(self) -> dict[str, int]:
        return {
            "weights": sum(w.nbytes for w in self._weights.values()),
            "kv_cache": sum(p.nbytes for p in (*self.keys, *self.values, *self.states)),
            "scratch": 0,
        }


def _dequantize(file: WeightFile, weight: Weight) -> F32:
    info = file.tensors[weight.name]
    raw = file.data(weight.name)
    return quants.get(info.type).dequantize(raw).reshape(info.shape)


class _Step:
    """What the ops of one step share."""

    def __init__(self, backend: ReferenceBackend, batch: Batch) -> None:
        self.backend = backend
        self.batch = batch
        self.positions = positions_of(batch)  # [T]
        self.values: dict[Value, Array] = {}

    def weights(self, node: Node) -> list[F32 | None]:
        """The node's tensors, None where an optional one is absent."""
        return [self.backend.weight(w) if w is not None else None for w in node.weights]

    def need(self, node: Node, index: int = 0) -> F32:
        """A tensor that must be there."""
        weight = node.weights[index]
        assert weight is not None
        return self.backend.weight(weight)

    def by_sequence(self) -> list[tuple[slice, int, int, int]]:
        """Rows, first position, slot_in and slot_out of each sequence."""
        return [
            (slice(s.start, s.start + s.count), s.position, s.slot_in, s.slot_out) for s in self.batch.sequences
        ]

    def state(self, index: int, position: int, slot: int) -> F32:
        """A copy of a sequence's state; zero at its beginning."""
        pool = self.backend.states[index]
        return pool[slot].copy() if position else np.zeros_like(pool[0])


# -- tables and projections -------------------------------------------------------------------------------------


@_implements(ops.Embed)
def _embed(step: _Step, node: Node) -> F32:
    assert isinstance(node.op, ops.Embed)
    table = step.need(node)
    if node.op.of == "positions":
        return table[step.positions]
    if node.op.of == "token_types":
        return table[np.zeros(len(step.positions), np.int64)]
    return table[np.asarray(step.batch.tokens)]


@_implements(ops.MatMul)
def _matmul(step: _Step, node: Node, x: F32) -> F32:
    weight, bias = step.need(node), step.weights(node)[1]
    y = x.reshape(len(x), -1) @ weight.T
    return y if bias is None else y + bias


@_implements(ops.SelectRows)
def _select_rows(step: _Step, node: Node, x: F32) -> F32:
    return x[np.asarray(step.batch.outputs, np.int64)]


@_implements(ops.Pool)
def _pool(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Pool)
    pick: dict[str, Callable[[F32], F32]] = {
        "mean": lambda rows: rows.mean(axis=0),
        "first": lambda rows: rows[0],
        "last": lambda rows: rows[-1],
    }
    return np.stack([pick[node.op.kind](x[rows]) for rows, *_ in step.by_sequence()])


# -- norms and element-wise -------------------------------------------------------------------------------------


@_implements(ops.RMSNorm)
def _rms_norm(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.RMSNorm)
    (weight,) = step.weights(node)
    y = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(node.op.eps))
    return y if weight is None else y * weight


@_implements(ops.LayerNorm)
def _layer_norm(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.LayerNorm)
    weight, bias = step.weights(node)
    centred = x - x.mean(axis=-1, keepdims=True)
    y = centred / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + np.float32(node.op.eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@_implements(ops.L2Norm)
def _l2_norm(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.L2Norm)
    return x / np.maximum(np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True)), np.float32(node.op.eps))


def activate(kind: ops.ActivationKind, x: F32) -> F32:
    """One activation function, f32 in and out."""
    with np.errstate(over="ignore"):
        match kind:
            case "silu":
                return x / (1 + np.exp(-x))
            case "sigmoid":
                return 1 / (1 + np.exp(-x))
            case "gelu":
                return np.asarray(0.5 * x * (1 + _erf(x / np.sqrt(2.0))), np.float32)
            case "gelu_tanh":
                inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
                return np.float32(0.5) * x * (1 + np.tanh(inner))
            case "relu":
                return np.maximum(x, np.float32(0))
            case "relu2":
                return np.square(np.maximum(x, np.float32(0)))
            case "softplus":
                return np.logaddexp(np.float32(0), x)
            case "tanh":
                return np.tanh(x)


def _erf(x: Array) -> Array:
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x)


@_implements(ops.Activation)
def _activation(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Activation)
    return activate(node.op.kind, x)


@_implements(ops.Glu)
def _glu(step: _Step, node: Node, gate: F32, up: F32) -> F32:
    assert isinstance(node.op, ops.Glu)
    return activate(node.op.kind, gate) * up


def _other(step: _Step, node: Node, a: F32, b: F32 | None) -> F32:
    """The second operand, with axes added until it broadcasts over a's trailing ones."""
    if b is None:
        weight = step.need(node)
        return weight.reshape(a.shape[-1:]) if weight.size == a.shape[-1] else weight
    return b.reshape(b.shape + (1,) * (a.ndim - b.ndim))


@_implements(ops.Add)
def _add(step: _Step, node: Node, a: F32, b: F32 | None = None) -> F32:
    return a + _other(step, node, a, b)


@_implements(ops.Mul)
def _mul(step: _Step, node: Node, a: F32, b: F32 | None = None) -> F32:
    return a * _other(step, node, a, b)


@_implements(ops.Scale)
def _scale(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Scale)
    return x * np.float32(node.op.factor)


@_implements(ops.Softcap)
def _softcap(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Softcap)
    return np.float32(node.op.cap) * np.tanh(x / np.float32(node.op.cap))


@_implements(ops.Reshape)
def _reshape(step: _Step, node: Node, x: Array) -> Array:
    return x.reshape(len(x), *node.outputs[0].shape[1:])


@_implements(ops.Slice)
def _slice(step: _Step, node: Node, x: Array) -> Array:
    assert isinstance(node.op, ops.Slice)
    return x[..., node.op.start : node.op.stop]


@_implements(ops.Concat)
def _concat(step: _Step, node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, axis=-1)


# -- attention ----------------------------------------------------------------------------------------------------


@_implements(ops.Rope)
def _rope(step: _Step, node: Node, x: F32) -> F32:  # x [T, H, D]
    assert isinstance(node.op, ops.Rope)
    config, (factors,) = node.op.config, step.weights(node)
    length = int(step.positions.max()) + 1
    table = step.backend.tables.setdefault(node, RopeTable(config, factors, step.backend.graph.context_length))
    table.ensure(length)
    cos, sin = (table.rows[step.positions, i][:, None, :] for i in range(2))  # [T, 1, dims/2]
    y = x.copy()
    if config.style == "norm":
        first, second = slice(0, config.dims, 2), slice(1, config.dims, 2)
    else:
        first, second = slice(0, config.dims // 2), slice(config.dims // 2, config.dims)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


@_implements(ops.Attention)
def _attention(step: _Step, node: Node, q: F32, k: F32, v: F32 | None = None) -> F32:
    op = node.op
    assert isinstance(op, ops.Attention)
    keys, values = step.backend.keys[op.cache], step.backend.values[op.cache]
    (sinks,) = step.weights(node)
    out = np.empty((*q.shape[:2], op.value_dim), np.float32)
    for sequence in step.batch.sequences:
        rows = slice(sequence.start, sequence.start + sequence.count)
        end = sequence.position + sequence.count
        where = np.arange(sequence.position, end)
        pages = np.asarray(sequence.pages)[where // PAGE_SIZE]
        keys[pages, where % PAGE_SIZE] = k[rows]
        if v is not None:
            values[pages, where % PAGE_SIZE] = v[rows]
        table = np.asarray(sequence.pages[: -(-end // PAGE_SIZE)])
        all_keys = keys[table].reshape(-1, *keys.shape[2:])[:end].astype(np.float32)  # [end, Hkv, Dk]
        all_values = values[table].reshape(-1, *values.shape[2:])[:end].astype(np.float32)
        if v is None:
            all_values = all_keys[..., : op.value_dim]
        out[rows] = _attend(op, q[rows], all_keys, all_values, where, sinks)
    return out


def _attend(op: ops.Attention, q: F32, k: F32, v: F32, where: Array, sinks: F32 | None) -> F32:
    """Softmax attention of q [n, H, Dk] at positions `where` over k, v [end, Hkv, D]."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) * np.float32(op.scale)
    if op.softcap:
        scores = np.float32(op.softcap) * np.tanh(scores / np.float32(op.softcap))
    distance = where[:, None] - np.arange(len(k))[None, :]
    hidden = distance < 0 if op.causal else np.zeros_like(distance, bool)
    if op.window:
        hidden = hidden | (np.abs(distance) >= op.window)
    scores = np.where(hidden, -np.inf, scores)
    peak = scores.max(axis=-1, keepdims=True)
    if sinks is not None:
        peak = np.maximum(peak, sinks[:, None, None])
    p = np.exp(scores - peak)
    total = p.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks[:, None, None] - peak)
    return np.einsum("hqk,khd->qhd", p / total, v)


# -- experts ------------------------------------------------------------------------------------------------------


@_implements(ops.Route)
def _route(step: _Step, node: Node, scores: F32) -> tuple[Array, F32]:
    op = node.op
    assert isinstance(op, ops.Route)
    (bias,) = step.weights(node)
    if op.gating == "softmax":
        p = _softmax(scores)
    else:
        p = activate("sigmoid", scores) if op.gating == "sigmoid" else scores
    choice = p if bias is None else p + bias
    ids = np.argsort(-choice, axis=-1, kind="stable")[:, : op.k]  # ties go to the lower id
    weights = np.take_along_axis(p, ids, axis=-1)
    if op.gating == "softmax_weight":
        weights = _softmax(weights)
    if op.normalize:
        weights = weights / weights.sum(axis=-1, keepdims=True)
    return ids.astype(np.int32), weights * np.float32(op.scale)


def _softmax(x: F32) -> F32:
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


@_implements(ops.ExpertMatMul)
def _expert_matmul(step: _Step, node: Node, x: F32, ids: Array) -> F32:
    weight, bias = step.need(node), step.weights(node)[1]
    rows = x[:, None, :] if x.ndim == 2 else x  # [T, 1 or k, K]
    y = np.einsum("tknd,tkd->tkn", weight[ids], np.broadcast_to(rows, (*ids.shape, rows.shape[-1])))
    return y if bias is None else y + bias[ids]


@_implements(ops.ExpertSum)
def _expert_sum(step: _Step, node: Node, x: F32, weights: F32) -> F32:
    total = np.zeros_like(x[:, 0])
    for rank in range(x.shape[1]):
        total = total + x[:, rank] * weights[:, rank, None]
    return total


# -- layers with a state ------------------------------------------------------------------------------------------


@_implements(ops.ShortConv)
def _short_conv(step: _Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.ShortConv)
    weight, bias = step.need(node), step.weights(node)[1]  # [C, W]
    width = weight.shape[1]
    y = np.empty_like(x)
    for rows, position, slot_in, slot_out in step.by_sequence():
        past = step.state(node.op.state, position, slot_in)  # [W - 1, C]
        history = np.concatenate([past, x[rows]])
        windows = np.lib.stride_tricks.sliding_window_view(history, width, axis=0)  # [n, C, W]
        y[rows] = np.einsum("ncw,cw->nc", windows, weight)
        step.backend.states[node.op.state][slot_out] = history[len(history) - (width - 1) :]
    return y if bias is None else y + bias


@_implements(ops.DeltaRule)
def _delta_rule(step: _Step, node: Node, q: F32, k: F32, v: F32, decay: F32, beta: F32) -> F32:
    assert isinstance(node.op, ops.DeltaRule)
    y = np.empty_like(v)
    for rows, position, slot_in, slot_out in step.by_sequence():
        m = step.state(node.op.state, position, slot_in)  # [H, Dk, Dv]
        for t in range(rows.start, rows.stop):
            m = m * np.exp(decay[t])[:, None, None]
            error = v[t] - np.einsum("hk,hkv->hv", k[t], m)
            m = m + np.einsum("hk,hv->hkv", k[t], error * beta[t][:, None])
            y[t] = np.einsum("hk,hkv->hv", q[t], m) * np.float32(node.op.scale)
        step.backend.states[node.op.state][slot_out] = m
    return y


@_implements(ops.StateSpaceScan)
def _state_space_scan(step: _Step, node: Node, x: F32, dt: F32, b: F32, c: F32) -> F32:
    assert isinstance(node.op, ops.StateSpaceScan)
    a, d = (step.need(node, i).reshape(-1) for i in range(2))  # [H]
    heads = x.shape[1]
    group = np.arange(heads) * b.shape[1] // heads
    y = np.empty_like(x)
    for rows, position, slot_in, slot_out in step.by_sequence():
        m = step.state(node.op.state, position, slot_in)  # [H, P, N]
        for t in range(rows.start, rows.stop):
            inner = np.einsum("hp,hn->hpn", x[t] * dt[t][:, None], b[t][group])
            m = m * np.exp(dt[t] * a)[:, None, None] + inner
            y[t] = np.einsum("hpn,hn->hp", m, c[t][group]) + x[t] * d[:, None]
        step.backend.states[node.op.state][slot_out] = m
    return y
