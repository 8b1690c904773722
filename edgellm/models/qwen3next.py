"""Qwen3-Next and Qwen 3.5: three layers of gated delta rule to one of gated attention.

Gated delta networks: Yang et al. 2024, https://arxiv.org/abs/2412.06464
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import FormatError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value
from edgellm.graph.ops import RopeConfig
from edgellm.models import architecture
from edgellm.models.blocks import experts, gated_feed_forward, routing, shared_expert
from edgellm.models.common import (
    TransformerSizes,
    output_logits,
    positive,
    rope_config,
    transformer_sizes,
)


@dataclass(frozen=True)
class _Delta:
    """Sizes of a delta rule layer: `value_heads` heads share `key_heads` pairs of query and key."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int
    tiled: bool  # value head h goes with key head h mod key_heads; else neighbours share one

    @property
    def key_size(self) -> int:
        return self.key_heads * self.key_dim

    @property
    def value_size(self) -> int:
        return self.value_heads * self.value_dim


@architecture("qwen3next")
def qwen3next(meta: Metadata, g: Builder) -> Graph:
    """Delta rule or attention, then experts."""
    return _decoder(meta, g, _delta(meta, tiled=False))


@architecture("qwen35", "qwen35moe")
def qwen35(meta: Metadata, g: Builder) -> Graph:
    """The same with value heads in another order, and dense models too."""
    return _decoder(meta, g, _delta(meta, tiled=True))


def _decoder(meta: Metadata, g: Builder, delta: _Delta) -> Graph:
    p = transformer_sizes(meta)
    rope = rope_config(meta, "neox", p.head_dim)
    recurrent, num_experts = _recurrent_layers(meta), meta.int("expert_count", 0)

    x = g.embed("token_embd", p.hidden_size)
    for i in range(p.num_layers):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        if recurrent[i]:
            a = g.linear(_delta_rule(g, h, f"blk.{i}", delta, p.eps), f"blk.{i}.ssm_out", p.hidden_size)
        else:
            a = _gated_attention(g, h, f"blk.{i}", p, rope, p.head_dim**-0.5)
            a = g.linear(a, f"blk.{i}.attn_output", p.hidden_size)
        x = x + a

        h = g.rms_norm(x, f"blk.{i}.post_attention_norm", p.eps)
        if num_experts:
            f = experts(g, h, f"blk.{i}", num_experts, routing(meta))
            f = f + shared_expert(g, h, f"blk.{i}") if g.has(f"blk.{i}.ffn_up_shexp") else f
        else:
            f = gated_feed_forward(g, h, f"blk.{i}")
        x = x + f

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, x)


def _recurrent_layers(meta: Metadata) -> list[bool]:
    """Which layers follow the delta rule: the file's entry for each, or all but every fourth."""
    key = "attention.recurrent_layers"
    if key in meta:
        return [bool(entry) for entry in meta.get_array(key)]
    interval = positive(meta, "full_attention_interval", 4)
    return [(i + 1) % interval != 0 for i in range(positive(meta, "block_count"))]


def _delta(meta: Metadata, tiled: bool) -> _Delta:
    value_heads, key_heads = positive(meta, "ssm.time_step_rank"), positive(meta, "ssm.group_count")
    inner = positive(meta, "ssm.inner_size")
    if inner % value_heads or value_heads % key_heads:
        raise FormatError(
            f"{meta.name('ssm.inner_size')} {inner} cannot be cut into {value_heads} heads that share "
            f"{meta.name('ssm.group_count')} {key_heads}; each must divide the one before"
        )
    return _Delta(
        key_heads=key_heads,
        value_heads=value_heads,
        key_dim=positive(meta, "ssm.state_size"),
        value_dim=inner // value_heads,
        conv_width=positive(meta, "ssm.conv_kernel"),
        tiled=tiled,
    )


def _gated_attention(
    g: Builder, h: Value, blk: str, p: TransformerSizes, rope: RopeConfig, scale: float
) -> Value:
    """Attention whose result each head gates: a head's gate stands behind its query in one projection."""
    both = g.linear(h, f"{blk}.attn_q", p.num_heads * 2 * p.head_dim).reshape(p.num_heads, 2 * p.head_dim)
    q, gate = both.slice(0, p.head_dim), both.slice(p.head_dim, 2 * p.head_dim)
    k = g.linear(h, f"{blk}.attn_k", p.num_kv_heads * p.head_dim).reshape(p.num_kv_heads, p.head_dim)
    v = g.linear(h, f"{blk}.attn_v", p.num_kv_heads * p.head_dim).reshape(p.num_kv_heads, p.head_dim)
    q, k = g.rms_norm(q, f"{blk}.attn_q_norm", p.eps), g.rms_norm(k, f"{blk}.attn_k_norm", p.eps)
    a = g.attention(g.rope(q, rope), g.rope(k, rope), v, scale=scale)
    return a * g.activation(gate, "sigmoid")


def _delta_rule(g: Builder, h: Value, blk: str, p: _Delta, eps: float) -> Value:
    """A delta rule layer up to its last projection, [T, value_size]."""
    qkv, z = _mixed(g, h, blk, p)
    b, a = _beta_alpha(g, h, blk, p)
    beta = g.activation(b, "sigmoid")
    # The file holds -exp(A_log).
    softened = g.activation(g.add(a, g.vector(f"{blk}.ssm_dt.bias", p.value_heads)), "softplus")
    decay = g.mul(softened, g.vector(f"{blk}.ssm_a", p.value_heads))

    kernel = g.weight(f"{blk}.ssm_conv1d", 2 * p.key_size + p.value_size, p.conv_width)
    qkv = g.activation(g.short_conv(qkv, kernel), "silu")
    q = qkv.slice(0, p.key_size).reshape(p.key_heads, p.key_dim)
    k = qkv.slice(p.key_size, 2 * p.key_size).reshape(p.key_heads, p.key_dim)
    v = qkv.slice(2 * p.key_size, 2 * p.key_size + p.value_size).reshape(p.value_heads, p.value_dim)
    q, k = (g.repeat_heads(g.l2_norm(x, eps), p.value_heads, p.tiled) for x in (q, k))

    y = g.delta_rule(q, k, v, decay, beta, scale=p.key_dim**-0.5)
    y = g.glu(z.reshape(p.value_heads, p.value_dim), g.rms_norm(y, f"{blk}.ssm_norm", eps), "silu")
    return y.reshape(p.value_size)


def _mixed(g: Builder, h: Value, blk: str, p: _Delta) -> tuple[Value, Value]:
    """q, k and v side by side, [T, 2 key_size + value_size], and the output gate z [T, value_size].

    Older files keep them in one tensor, interleaved by key head.
    """
    if g.has(f"{blk}.attn_qkv"):
        qkv = g.linear(h, f"{blk}.attn_qkv", 2 * p.key_size + p.value_size)
        return qkv, g.linear(h, f"{blk}.attn_gate", p.value_size)
    each = p.value_size // p.key_heads
    width = 2 * p.key_dim + 2 * each
    qkvz = g.linear(h, f"{blk}.ssm_in", p.key_heads * width).reshape(p.key_heads, width)
    q, k = qkvz.slice(0, p.key_dim), qkvz.slice(p.key_dim, 2 * p.key_dim)
    v, z = qkvz.slice(2 * p.key_dim, 2 * p.key_dim + each), qkvz.slice(2 * p.key_dim + each, width)
    parts = q.reshape(p.key_size), k.reshape(p.key_size), v.reshape(p.value_size)
    return g.concat(*parts), z.reshape(p.value_size)


def _beta_alpha(g: Builder, h: Value, blk: str, p: _Delta) -> tuple[Value, Value]:
    """Write strength and decay before their activations, each [T, value_heads]."""
    if not g.has(f"{blk}.ssm_ba"):
        return g.linear(h, f"{blk}.ssm_beta", p.value_heads), g.linear(h, f"{blk}.ssm_alpha", p.value_heads)
    each = p.value_heads // p.key_heads
    both = g.linear(h, f"{blk}.ssm_ba", 2 * p.value_heads).reshape(p.key_heads, 2 * each)
    return both.slice(0, each).reshape(p.value_heads), both.slice(each, 2 * each).reshape(p.value_heads)
