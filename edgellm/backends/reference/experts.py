"""Routing to experts, and what they compute."""

from __future__ import annotations

import numpy as np

from edgellm.backends.reference.pointwise import activate
from edgellm.backends.reference.step import F32, Array, Step, implements
from edgellm.graph import Node, ops

_LEAST_SUM = np.float32(2.0**-14)  # below it normal numbers of half precision end


@implements(ops.Route)
def _route(step: Step, node: Node, scores: F32) -> tuple[Array, F32]:
    op = node.op
    assert isinstance(op, ops.Route)
    (bias,) = step.weights(node)
    if op.gating == "softmax":
        p = _softmax(scores)
    else:
        p = activate("sigmoid", scores) if op.gating == "sigmoid" else scores
    choice = p if bias is None else p + bias
    if op.groups > 1:
        choice = _best_groups(choice, op.groups, op.groups_used)
    ids = np.argsort(-choice, axis=-1, kind="stable")[:, : op.k]  # ties go to the lower id
    weights = np.take_along_axis(p, ids, axis=-1)
    if op.gating == "softmax_weight":
        weights = _softmax(weights)
    if op.normalize:
        weights = weights / np.maximum(weights.sum(axis=-1, keepdims=True), _LEAST_SUM)
    return ids.astype(np.int32), weights * np.float32(op.scale)


def _best_groups(choice: F32, groups: int, used: int) -> F32:
    """Minus infinity for experts outside the groups whose two best sum highest; choice [T, E]."""
    by_group = choice.reshape(len(choice), groups, -1)
    two_best = np.sort(by_group, axis=-1)[..., -2:].sum(axis=-1)  # [T, groups]
    best = np.argsort(-two_best, axis=-1, kind="stable")[:, :used]
    chosen = np.zeros(two_best.shape, bool)
    np.put_along_axis(chosen, best, True, axis=-1)
    kept: F32 = np.where(chosen[..., None], by_group, np.float32(-np.inf))
    return kept.reshape(choice.shape)


def _softmax(x: F32) -> F32:
    p = np.exp(x - x.max(axis=-1, keepdims=True))
    y: F32 = p / p.sum(axis=-1, keepdims=True)
    return y


@implements(ops.ExpertMatMul)
def _expert_matmul(step: Step, node: Node, x: F32, ids: Array) -> F32:
    weight, bias = step.need(node), step.weights(node)[1]
    rows = np.broadcast_to(x[:, None, :] if x.ndim == 2 else x, (*ids.shape, x.shape[-1]))  # [T, k, K]
    y = np.empty((*ids.shape, weight.shape[1]), np.float32)
    for expert in np.unique(ids):
        mine = ids == expert
        y[mine] = rows[mine] @ weight[expert].T
    return y if bias is None else y + bias[ids]


@implements(ops.ExpertSum)
def _expert_sum(step: Step, node: Node, x: F32, weights: F32) -> F32:
    total = np.zeros_like(x[:, 0])
    for rank in range(x.shape[1]):
        total = total + x[:, rank] * weights[:, rank, None]
    return total
