"""Layers that keep a state of each sequence, token by token."""

from __future__ import annotations

import numpy as np

from edgellm.backends.reference.step import F32, Step, implements
from edgellm.graph import Node, ops


@implements(ops.ShortConv)
def _short_conv(step: Step, node: Node, x: F32) -> F32:
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


@implements(ops.DeltaRule)
def _delta_rule(step: Step, node: Node, q: F32, k: F32, v: F32, decay: F32, beta: F32) -> F32:
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


@implements(ops.StateSpaceScan)
def _state_space_scan(step: Step, node: Node, x: F32, dt: F32, b: F32, c: F32) -> F32:
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
