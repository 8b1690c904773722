"""Norms, activations, and all that goes element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from edgellm.backends.reference.step import F32, Array, Step, implements
from edgellm.graph import Node, ops


@implements(ops.RMSNorm)
def _rms_norm(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.RMSNorm)
    (weight,) = step.weights(node)
    y: F32 = x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + np.float32(node.op.eps))
    return y if weight is None else y * weight


@implements(ops.LayerNorm)
def _layer_norm(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.LayerNorm)
    weight, bias = step.weights(node)
    centred = x - x.mean(axis=-1, keepdims=True)
    y: F32 = centred / np.sqrt(np.mean(np.square(centred), axis=-1, keepdims=True) + np.float32(node.op.eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


@implements(ops.L2Norm)
def _l2_norm(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.L2Norm)
    length = np.sqrt(np.sum(np.square(x), axis=-1, keepdims=True))
    y: F32 = x / np.maximum(length, np.float32(node.op.eps))
    return y


def activate(kind: ops.ActivationKind, x: F32) -> F32:
    """One activation function, f32 in and out."""
    with np.errstate(over="ignore"):
        return np.asarray(_activate(kind, x), np.float32)


def _activate(kind: ops.ActivationKind, x: F32) -> Any:
    match kind:
        case "silu":
            return x / (1 + np.exp(-x))
        case "sigmoid":
            return 1 / (1 + np.exp(-x))
        case "gelu":
            return 0.5 * x * (1 + _erf(x / math.sqrt(2.0)))
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
    y: Array = np.vectorize(math.erf, otypes=[np.float64])(x)
    return y


@implements(ops.Activation)
def _activation(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Activation)
    return activate(node.op.kind, x)


@implements(ops.Glu)
def _glu(step: Step, node: Node, gate: F32, up: F32) -> F32:
    assert isinstance(node.op, ops.Glu)
    return activate(node.op.kind, gate) * up


def _other(step: Step, node: Node, a: F32, b: F32 | None) -> F32:
    """The second operand, with axes added until it broadcasts over a's trailing ones."""
    if b is None:
        weight = step.need(node)
        return weight.reshape(a.shape[-1:]) if weight.size == a.shape[-1] else weight
    return b.reshape(b.shape + (1,) * (a.ndim - b.ndim))


@implements(ops.Add)
def _add(step: Step, node: Node, a: F32, b: F32 | None = None) -> F32:
    return a + _other(step, node, a, b)


@implements(ops.Mul)
def _mul(step: Step, node: Node, a: F32, b: F32 | None = None) -> F32:
    return a * _other(step, node, a, b)


@implements(ops.Scale)
def _scale(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Scale)
    return x * np.float32(node.op.factor)


@implements(ops.Softcap)
def _softcap(step: Step, node: Node, x: F32) -> F32:
    assert isinstance(node.op, ops.Softcap)
    y: F32 = np.float32(node.op.cap) * np.tanh(x / np.float32(node.op.cap))
    return y


@implements(ops.Reshape)
def _reshape(step: Step, node: Node, x: Array) -> Array:
    return x.reshape(len(x), *node.outputs[0].shape[1:])


@implements(ops.Slice)
def _slice(step: Step, node: Node, x: Array) -> Array:
    assert isinstance(node.op, ops.Slice)
    return x[..., node.op.start : node.op.stop]


@implements(ops.Concat)
def _concat(step: Step, node: Node, *parts: Array) -> Array:
    return np.concatenate(parts, axis=-1)
