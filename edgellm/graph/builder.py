"""What model files write with: one method an op, which checks shapes against the file and appends a node.

    x = g.embed("token_embd.weight")
    h = g.rms_norm(x, "blk.0.attn_norm", eps)
    x = x + g.linear(h, "blk.0.attn_output")

A tensor that the file lacks, or whose shape does not fit, is a FormatError that names it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from edgellm.errors import FormatError
from edgellm.graph import ops
from edgellm.graph.graph import CacheSpec, Dim, Graph, Node, O, S, StateSpec, T, Value, Weight
from edgellm.graph.tensors import HasShape, Tensors


class Builder(Tensors):
    """Builds one Graph over the tensors of one file."""

    def __init__(self, tensors: Mapping[str, HasShape]) -> None:
        super().__init__(tensors)
        self.graph = Graph()
        self._count = 0

    def value(self, shape: Sequence[Dim], dtype: str = "f32") -> Value:
        """A new value that no node makes yet."""
        self._count += 1
        return Value(self._count - 1, tuple(shape), dtype, self)

    def emit(
        self,
        op: ops.Op,
        inputs: Sequence[Value],
        shape: Sequence[Dim],
        weights: Sequence[Weight | None] = (),
    ) -> Value:
        """Append a node with one output of `shape`."""
        out = self.value(shape)
        self.graph.nodes.append(Node(op, tuple(inputs), tuple(weights), (out,)))
        return out

    def embed(self, name: str, dim: int | None = None) -> Value:
        """Rows of a table by token id."""
        table = self.weight(name, None, dim)
        return self.emit(ops.Embed(), (), (T, table.shape[1]), (table,))

    def embed_by(self, of: Literal["positions", "token_types"], name: str, dim: int, rows: int = 1) -> Value:
        """Rows of a table of at least `rows` rows, by position or by token type."""
        table = self.weight(name, None, dim)
        if table.shape[0] < rows:
            raise FormatError(f"tensor {table.name!r} has {table.shape[0]} rows; at least {rows} are needed")
        return self.emit(ops.Embed(of), (), (T, dim), (table,))

    def linear(self, x: Value, name: str, out: int | None = None, bias: str | None = None) -> Value:
        """x @ weight.T (+ bias, where the file has `name.bias`)."""
        weight = self.weight(name, out, x.width)
        stem = name.removesuffix(".weight")
        offset = self.optional(bias or stem + ".bias", weight.shape[0])
        return self.emit(ops.MatMul(), (x,), (x.shape[0], weight.shape[0]), (weight, offset))

    def head_linear(self, x: Value, name: str, out: int) -> Value:
        """x [T, H, K], each head through its own matrix of the weight [H, out, K]."""
        heads = x.shape[1]
        assert isinstance(heads, int)
        weight = self.weight(name, heads, out, _last(x))
        return self.emit(ops.HeadMatMul(), (x,), (x.shape[0], heads, out), (weight,))

    def repeat_heads(self, x: Value, heads: int, tile: bool = False) -> Value:
        """x [T, H, D] with `heads` heads, a multiple of H; x itself where it has them already."""
        have = x.shape[1]
        assert isinstance(have, int)
        if heads == have:
            return x
        if heads % have:
            raise FormatError(
                f"{have} heads cannot serve {heads}; the larger must be a multiple of the smaller"
            )
        return self.emit(ops.RepeatHeads(heads // have, tile), (x,), (x.shape[0], heads, _last(x)))

    def rms_norm(self, x: Value, name: str | None, eps: float) -> Value:
        """RMS norm over the last axis, with the weight `name`: one for all rows of x, or one for each."""
        weight = None
        if name is not None:
            whole = math.prod(self.shape_of(name)) == x.width
            weight = self.weight(name, *_sizes(x)) if whole else self.weight(name, _last(x))
        return self.emit(ops.RMSNorm(eps), (x,), x.shape, (weight,))

    def layer_norm(self, x: Value, name: str, eps: float) -> Value:
        """Layer norm over the last axis, with weight and bias where the file has them."""
        weight = self.optional(name + ".weight", _last(x))
        bias = self.optional(name + ".bias", _last(x))
        return self.emit(ops.LayerNorm(eps), (x,), x.shape, (weight, bias))

    def l2_norm(self, x: Value, eps: float) -> Value:
        """L2 norm over the last axis."""
        return self.emit(ops.L2Norm(eps), (x,), x.shape)

    def rope(self, x: Value, config: ops.RopeConfig, factors: Weight | None = None) -> Value:
        """x [T, H, D] turned by position."""
        if not 0 < config.dims <= _last(x) or config.dims % 2:
            raise FormatError(
                f"rope over {config.dims} dimensions does not fit heads of {_last(x)}: an even number "
                "from 2 to that is needed"
            )
        if factors is not None and factors.shape != (config.dims // 2,):
            raise FormatError(
                f"tensor {factors.name!r} has shape {list(factors.shape)}; rope over {config.dims} "
                f"dimensions needs {config.dims // 2} factors"
            )
        return self.emit(ops.Rope(config), (x,), x.shape, (factors,))

    def attention(
        self,
        q: Value,
        k: Value,
        v: Value | None,
        *,
        scale: float,
        value_dim: int | None = None,
        causal: bool = True,
        window: int = 0,
        softcap: float = 0.0,
        sinks: Weight | None = None,
    ) -> Value:
        """Attention with a cache of its own; shapes as in `ops.Attention`."""
        heads, kv_heads = q.shape[1], k.shape[1]
        assert isinstance(heads, int)
        assert isinstance(kv_heads, int)
        if heads % kv_heads or _last(q) != _last(k) or (v is not None and v.shape[1] != kv_heads):
            raise FormatError(f"{heads} heads of {_last(q)} cannot attend to {kv_heads} heads of {_last(k)}")
        dim = _last(v) if v is not None else value_dim or _last(k)
        self.graph.caches.append(CacheSpec(kv_heads, _last(k), _last(v) if v is not None else 0))
        op = ops.Attention(len(self.graph.caches) - 1, scale, dim, causal, window, softcap)
        inputs = (q, k) if v is None else (q, k, v)
        return self.emit(op, inputs, (T, heads, dim), (sinks,))

    def activation(self, x: Value, kind: ops.ActivationKind) -> Value:
        """f(x)."""
        return self.emit(ops.Activation(kind), (x,), x.shape)

    def glu(self, gate: Value, up: Value, kind: ops.ActivationKind) -> Value:
        """f(gate) * up."""
        return self.emit(ops.Glu(kind), (gate, up), up.shape)

    def add(self, a: Value, b: Value | Weight) -> Value:
        """a + b; a weight's bytes are used as they are."""
        return self._pair(ops.Add(), a, b)

    def mul(self, a: Value, b: Value | Weight) -> Value:
        """a * b."""
        return self._pair(ops.Mul(), a, b)

    def _pair(self, op: ops.Op, a: Value, b: Value | Weight) -> Value:
        if isinstance(b, Weight):
            return self.emit(op, (a,), a.shape, (b,))
        if any(m not in (n, 1) for n, m in zip(a.shape, b.shape, strict=False)) or len(b.shape) > len(
            a.shape
        ):
            raise FormatError(f"rows of {list(b.shape[1:])} do not go with rows of {list(a.shape[1:])}")
        return self.emit(op, (a, b), a.shape, (None,))

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor."""
        return self.emit(ops.Scale(factor), (x,), x.shape)

    def softcap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap)."""
        return self.emit(ops.Softcap(cap), (x,), x.shape)

    def reshape(self, x: Value, sizes: Sequence[int]) -> Value:
        """Rows in another shape of the same size."""
        if math.prod(sizes) != x.width:
            raise FormatError(f"rows of {list(x.shape[1:])} cannot be seen as {list(sizes)}")
        return self.emit(ops.Reshape(), (x,), (x.shape[0], *sizes))

    def slice(self, x: Value, start: int, stop: int) -> Value:
        """Columns of the last axis."""
        if not 0 <= start < stop <= _last(x):
            raise FormatError(f"there are no columns {start} to {stop} in rows of {_last(x)}")
        return self.emit(ops.Slice(start, stop), (x,), (*x.shape[:-1], stop - start))

    def concat(self, *parts: Value) -> Value:
        """Parts side by side on the last axis."""
        return self.emit(ops.Concat(), parts, (*parts[0].shape[:-1], sum(_last(p) for p in parts)))

    def route(self, scores: Value, op: ops.Route, bias: Weight | None = None) -> tuple[Value, Value]:
        """Ids and weights of the chosen experts, each [T, k]."""
        experts = _last(scores)
        if not 1 <= op.k <= experts:
            raise FormatError(f"{op.k} experts are to be used of {experts}; from 1 to {experts} is possible")
        grouped = op.groups > 1 and experts // op.groups * op.groups_used < op.k
        if op.groups < 1 or experts % op.groups or not 1 <= op.groups_used <= op.groups or grouped:
            raise FormatError(
                f"{op.k} of {experts} experts cannot be chosen from {op.groups_used} of {op.groups} groups"
            )
        ids, weights = self.value((T, op.k), "i32"), self.value((T, op.k))
        self.graph.nodes.append(Node(op, (scores,), (bias,), (ids, weights)))
        return ids, weights

    def expert_linear(
        self, x: Value, ids: Value, name: str, experts: int | None = None, out: int | None = None
    ) -> Value:
        """Each row of x through its own one of `experts` experts."""
        weight = self.weight(name, experts, out, _last(x))
        bias = self.optional(name.removesuffix(".weight") + ".bias", weight.shape[0], weight.shape[1])
        return self.emit(ops.ExpertMatMul(), (x, ids), (*ids.shape, weight.shape[1]), (weight, bias))

    def expert_sum(self, x: Value, weights: Value) -> Value:
        """What the experts said, weighted."""
        return self.emit(ops.ExpertSum(), (x, weights), (T, _last(x)))

    def short_conv(self, x: Value, weight: Weight, bias: Weight | None = None) -> Value:
        """Causal depthwise convolution with a state of its own."""
        channels, width = weight.shape
        if channels != x.width or width < 2:
            raise FormatError(
                f"tensor {weight.name!r} has shape {list(weight.shape)}; a convolution of {x.width} channels "
                "over at least 2 tokens is needed"
            )
        state = self._state(width - 1, channels)
        return self.emit(ops.ShortConv(state), (x,), x.shape, (weight, bias))

    def delta_rule(self, q: Value, k: Value, v: Value, decay: Value, beta: Value, scale: float) -> Value:
        """Gated delta rule with a state of its own; shapes as in `ops.DeltaRule`."""
        heads = v.shape[1]
        assert isinstance(heads, int)
        assert q.shape == k.shape == (T, heads, _last(k))
        assert decay.shape == beta.shape == (T, heads)
        state = self._state(heads, _last(k), _last(v))
        return self.emit(ops.DeltaRule(state, scale), (q, k, v, decay, beta), v.shape)

    def state_space_scan(self, x: Value, dt: Value, b: Value, c: Value, a: Weight, d: Weight) -> Value:
        """Mamba-2's scan with a state of its own; shapes as in `ops.StateSpaceScan`."""
        heads, groups = x.shape[1], b.shape[1]
        assert isinstance(heads, int)
        assert isinstance(groups, int)
        if heads % groups:
            raise FormatError(f"{heads} heads cannot share {groups} groups evenly")
        state = self._state(heads, _last(x), _last(b))
        return self.emit(ops.StateSpaceScan(state), (x, dt, b, c), x.shape, (a, d))

    def _state(self, *shape: int) -> int:
        self.graph.states.append(StateSpec(shape))
        return len(self.graph.states) - 1

    def select_rows(self, x: Value) -> Value:
        """Only the rows whose logits someone wants."""
        return self.emit(ops.SelectRows(), (x,), (O, *x.shape[1:]))

    def pool(self, x: Value, kind: Literal["mean", "first", "last"]) -> Value:
        """One row a sequence."""
        return self.emit(ops.Pool(kind), (x,), (S, *x.shape[1:]))

    def finish(self, output: Value, *, vocab_size: int, context_length: int, causal: bool = True) -> Graph:
        """The graph, whole."""
        self.graph.output = output
        self.graph.vocab_size = vocab_size
        self.graph.context_length = context_length
        self.graph.causal = causal
        return self.graph


def _sizes(x: Value) -> list[int]:
    """All sizes of a row."""
    return [n for n in x.shape[1:] if isinstance(n, int)]


def _last(x: Value) -> int:
    dim = x.shape[-1]
    assert isinstance(dim, int)
    return dim
