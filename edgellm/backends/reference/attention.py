"""Rope, and attention over pages."""

from __future__ import annotations

import numpy as np

from edgellm.backends.base import PAGE_SIZE, SequenceRows
from edgellm.backends.reference.step import F32, Array, Step, implements
from edgellm.graph import Node, ops


@implements(ops.Rope)
def _rope(step: Step, node: Node, x: F32) -> F32:  # x [T, H, D]
    assert isinstance(node.op, ops.Rope)
    config = node.op.config
    table = step.backend.rope_table(config, node.weights[0])
    table.ensure(int(step.positions.max()) + 1)
    cos, sin = (table.rows[step.positions, i][:, None, :] for i in range(2))  # [T, 1, dims/2]
    y = x.copy()
    if config.style == "norm":
        first, second = slice(0, config.dims, 2), slice(1, config.dims, 2)
    else:
        first, second = slice(0, config.dims // 2), slice(config.dims // 2, config.dims)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., first] * sin + x[..., second] * cos
    return y


@implements(ops.Attention)
def _attention(step: Step, node: Node, q: F32, k: F32, v: F32 | None = None) -> F32:
    op = node.op
    assert isinstance(op, ops.Attention)
    (sinks,) = step.weights(node)
    out = np.empty((*q.shape[:2], op.value_dim), np.float32)
    for sequence in step.batch.sequences:
        rows = slice(sequence.start, sequence.start + sequence.count)
        where = np.arange(sequence.position, sequence.position + sequence.count)
        keys, values = k[rows], v[rows] if v is not None else None
        if op.causal:
            keys, values = _through_cache(step, op.cache, sequence, where, keys, values)
        values = keys[..., : op.value_dim] if values is None else values
        out[rows] = _attend(op, q[rows], keys, values, where, sinks)
    return out


def _rounded(x: F32, kind: str) -> F32:
    """What a cache of this type keeps of x [..., D]: for q8_0 int8 times an f16 scale for 32 dimensions."""
    if kind != "q8_0":
        return x
    width = x.shape[-1]
    blocks = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -width % 32)]).reshape(*x.shape[:-1], -1, 32)
    peak = np.abs(blocks).max(-1, keepdims=True)
    inverse = np.divide(127, peak, out=np.zeros_like(peak), where=peak > 1e-30)
    scale = np.minimum(peak / np.float32(127), 65504).astype(np.float16)
    kept: F32 = np.rint(blocks * inverse).astype(np.float32) * scale.astype(np.float32)
    return kept.reshape(*x.shape[:-1], -1)[..., :width]


def _through_cache(
    step: Step, cache: int, sequence: SequenceRows, where: Array, k: F32, v: F32 | None
) -> tuple[F32, F32 | None]:
    """Store the rows at positions `where`; give all keys and values, [end, Hkv, D], up to the last."""
    keys, values = step.backend.keys[cache], step.backend.values[cache]
    everything = np.arange(where[-1] + 1)
    pages = np.asarray(sequence.pages)[everything // PAGE_SIZE]
    now, all_of_it = (pages[where], where % PAGE_SIZE), (pages, everything % PAGE_SIZE)
    k_type, v_type = step.backend.config.kv_types
    keys[now] = _rounded(k, k_type)
    if v is None:
        return keys[all_of_it].astype(np.float32), None
    values[now] = _rounded(v, v_type)
    return keys[all_of_it].astype(np.float32), values[all_of_it].astype(np.float32)


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
    out: F32 = np.einsum("hqk,khd->qhd", p / total, v)
    return out
