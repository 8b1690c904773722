"""Tables, projections, and picking rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgellm.backends.reference.step import F32, Array, Step, implements
from edgellm.graph import Node, ops


@implements(ops.Embed)
def _embed(step: Step, node: Node) -> F32:
    assert isinstance(node.op, ops.Embed)
    ids: dict[str, Array] = {
        "tokens": np.asarray(step.batch.tokens),
        "positions": step.positions,
        "token_types": np.zeros_like(step.positions),
    }
    rows: F32 = step.need(node)[ids[node.op.of]]
    return rows


@implements(ops.MatMul)
def _matmul(step: Step, node: Node, x: F32) -> F32:
    weight, bias = step.need(node), step.weights(node)[1]
    y: F32 = x.reshape(len(x), weight.shape[1]) @ weight.T
    return y if bias is None else y + bias


@implements(ops.HeadMatMul)
def _head_matmul(step: Step, node: Node, x: F32) -> F32:
    y: F32 = np.einsum("thk,hnk->thn", x, step.need(node))
    return y


@implements(ops.RepeatHeads)
def _repeat_heads(step: Step, node: Node, x: F32) -> F32:  # x [T, H, D]
    assert isinstance(node.op, ops.RepeatHeads)
    return np.tile(x, (1, node.op.times, 1)) if node.op.tile else np.repeat(x, node.op.times, axis=1)


@implements(ops.SelectRows)
def _select_rows(step: Step, node: Node, x: F32) -> F32:
    return x[np.asarray(step.batch.outputs, np.int64)]


@implements(ops.Pool)
def _pool(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Pool)
    pick: dict[str, Callable[[F32], F32]] = {
        "mean": lambda rows: rows.mean(axis=0),
        "first": lambda rows: rows[0],
        "last": lambda rows: rows[-1],
    }
    return np.stack([pick[node.op.kind](x[rows]) for rows, *_ in step.by_sequence()])
