"""Parts of layers that many families share. `blk` is the layer's prefix in tensor names, such as "blk.0"."""

from __future__ import annotations

from edgellm.errors import FormatError, UnsupportedError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Value
from edgellm.graph.ops import ActivationKind, Gating, Route
from edgellm.models.common import TransformerSizes, finite, positive

_GATINGS: dict[int, Gating] = {1: "softmax", 2: "sigmoid", 3: "softmax_weight"}


def queries_keys_values(g: Builder, h: Value, blk: str, p: TransformerSizes) -> tuple[Value, Value, Value]:
    """q [T, num_heads, head_dim], k and v [T, num_kv_heads, head_dim], from three tensors or from one."""
    q_size, k_size, v_size = (
        p.num_heads * p.head_dim,
        p.num_kv_heads * p.head_dim,
        p.num_kv_heads * p.value_dim,
    )
    if g.has(f"{blk}.attn_qkv"):
        qkv = g.linear(h, f"{blk}.attn_qkv", q_size + k_size + v_size)
        q, k = qkv.slice(0, q_size), qkv.slice(q_size, q_size + k_size)
        v = qkv.slice(q_size + k_size, q_size + k_size + v_size)
    else:
        q, k = g.linear(h, f"{blk}.attn_q", q_size), g.linear(h, f"{blk}.attn_k", k_size)
        v = g.linear(h, f"{blk}.attn_v", v_size)
    return (
        q.reshape(p.num_heads, p.head_dim),
        k.reshape(p.num_kv_heads, p.head_dim),
        v.reshape(p.num_kv_heads, p.value_dim),
    )


def gated_feed_forward(
    g: Builder, h: Value, blk: str, kind: ActivationKind = "silu", suffix: str = ""
) -> Value:
    """down(f(gate(h)) * up(h)); `suffix` "_shexp" names the shared expert's tensors."""
    gate, up = g.linear(h, f"{blk}.ffn_gate{suffix}"), g.linear(h, f"{blk}.ffn_up{suffix}")
    return g.linear(g.glu(gate, up, kind), f"{blk}.ffn_down{suffix}", h.width)


def routing(meta: Metadata, gating: Gating = "softmax", normalize: bool = True) -> Route:
    """How tokens choose experts; `gating` and `normalize` are what a file means that does not say."""
    function = meta.int("expert_gating_func", 0)
    if function != 0 and function not in _GATINGS:
        known = ", ".join(f"{n} ({name})" for n, name in _GATINGS.items())
        raise UnsupportedError(f"{meta.name('expert_gating_func')} is {function}; supported are {known}")
    return Route(
        k=positive(meta, "expert_used_count"),
        gating=_GATINGS.get(function, gating),
        normalize=meta.bool("expert_weights_norm", normalize),
        scale=finite(meta, "expert_weights_scale", 0.0) or 1.0,
        groups=meta.int("expert_group_count", 0) or 1,
        groups_used=meta.int("expert_group_used_count", 0) or 1,
    )


def experts(g: Builder, h: Value, blk: str, count: int, route: Route, kind: ActivationKind = "silu") -> Value:
    """Each token through its own choice of `count` gated feed-forwards, their results weighted and summed."""
    scores = g.linear(h, f"{blk}.ffn_gate_inp", count)
    ids, weights = g.route(scores, route, g.optional(f"{blk}.exp_probs_b.bias", count))
    gate, up = _expert_gate_up(g, h, ids, blk, count)
    y = g.expert_linear(g.glu(gate, up, kind), ids, f"{blk}.ffn_down_exps", count, h.width)
    return g.expert_sum(y, weights)


def _expert_gate_up(g: Builder, h: Value, ids: Value, blk: str, count: int) -> tuple[Value, Value]:
    """Gate and up projections, each [T, k, N], from two tensors or from one that holds gate above up."""
    fused = f"{blk}.ffn_gate_up_exps"
    if not g.has(fused):
        up = g.expert_linear(h, ids, f"{blk}.ffn_up_exps", count)
        assert isinstance(up.shape[2], int)
        return g.expert_linear(h, ids, f"{blk}.ffn_gate_exps", count, up.shape[2]), up
    both = g.expert_linear(h, ids, fused, count)
    width = both.shape[2]
    assert isinstance(width, int)
    if width % 2:
        raise FormatError(
            f"tensor {fused + '.weight'!r} has {width} rows an expert; an even number is needed"
        )
    return both.slice(0, width // 2), both.slice(width // 2, width)


def shared_expert(g: Builder, h: Value, blk: str) -> Value:
    """The expert that every token goes through, behind a gate of its own where the file has one."""
    y = gated_feed_forward(g, h, blk, suffix="_shexp")
    if g.has(f"{blk}.ffn_gate_inp_shexp"):
        y = y * g.activation(g.linear(h, f"{blk}.ffn_gate_inp_shexp", 1), "sigmoid")
    return y
