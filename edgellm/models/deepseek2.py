"""DeepSeek V2, V3 and R1, and what has their shape (Kimi K2): latent attention and many small experts.

DeepSeek-V2: https://arxiv.org/abs/2405.04434; V3: https://arxiv.org/abs/2412.19437
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgellm.errors import FormatError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value
from edgellm.graph.ops import RopeConfig
from edgellm.models import architecture
from edgellm.models.blocks import experts, gated_feed_forward, routing, shared_expert
from edgellm.models.common import (
    finite,
    num_layers,
    output_logits,
    positive,
    rms_eps,
    rope_config,
    same_in_all_layers,
)


@dataclass(frozen=True)
class _Latent:
    """Sizes of latent attention. A query or key is `nope` plain columns and `rope.dims` turned ones."""

    num_heads: int
    rank: int  # of the latent that keys and values are made from
    nope: int
    value_dim: int
    rope: RopeConfig
    scale: float
    eps: float


@architecture("deepseek2")
def deepseek2(meta: Metadata, g: Builder) -> Graph:
    """Latent attention; dense feed-forwards in the first layers, then routed experts beside a shared one."""
    hidden, latent = positive(meta, "embedding_length"), _latent(meta)
    first_dense = meta.int("leading_dense_block_count", 0)
    num_experts = meta.int("expert_count", 0)

    x = g.embed("token_embd", hidden)
    for i in range(num_layers(meta)):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", latent.eps)
        a = _attention(g, h, f"blk.{i}", latent)
        x = x + g.linear(a, f"blk.{i}.attn_output", hidden)

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", latent.eps)
        if i < first_dense or not num_experts:
            x = x + gated_feed_forward(g, h, f"blk.{i}")
        else:
            f = experts(g, h, f"blk.{i}", num_experts, routing(meta, normalize=False))
            x = x + (f + shared_expert(g, h, f"blk.{i}") if g.has(f"blk.{i}.ffn_up_shexp") else f)

    x = g.rms_norm(g.select_rows(x), "output_norm", latent.eps)
    return output_logits(meta, g, x)


def _latent(meta: Metadata) -> _Latent:
    """Files with split matrices give a head's own sizes under `_mla`, older ones as plain lengths."""
    mla = "_mla" if "attention.key_length_mla" in meta else ""
    heads = same_in_all_layers(meta, "attention.head_count")
    head_dim = positive(meta, f"attention.key_length{mla}", positive(meta, "embedding_length") // heads)
    rope, magnitude = _yarn(meta, rope_config(meta, "norm", head_dim))
    if not rope.dims < head_dim:
        raise FormatError(
            f"{meta.name('rope.dimension_count')} is {rope.dims}; a head of {head_dim} dimensions needs fewer"
        )
    return _Latent(
        num_heads=heads,
        rank=positive(meta, "attention.kv_lora_rank"),
        nope=head_dim - rope.dims,
        value_dim=positive(meta, f"attention.value_length{mla}", head_dim),
        rope=rope,
        scale=magnitude**2 * head_dim**-0.5,
        eps=rms_eps(meta),
    )


def _yarn(meta: Metadata, rope: RopeConfig) -> tuple[RopeConfig, float]:
    """Rope, and what queries and keys are multiplied with in the scale, their plain columns included.

    A file with a log multiplier wants that much there, and nothing on the turned columns. The scale of a
    stretched context is llama.cpp's, for which files are made, linear stretching included.
    """
    stretch = math.log(1.0 / rope.scale)
    multiplier = finite(meta, "rope.scaling.yarn_log_multiplier", 0.0)
    own = 1.0 + 0.1 * stretch  # YaRN's factor on turned columns
    if rope.ext_factor == 0.0:
        return rope, rope.attn_factor * own * (1.0 + multiplier * stretch)
    if multiplier == 0.0:
        return rope, rope.attn_factor * own
    return replace(rope, attn_factor=rope.attn_factor / own), rope.attn_factor * (1.0 + multiplier * stretch)


def _attention(g: Builder, h: Value, blk: str, p: _Latent) -> Value:
    """What the heads attend to, [T, num_heads, value_dim]."""
    q = _queries(g, h, blk, p)
    q_nope, q_rope = q.slice(0, p.nope), g.rope(q.slice(p.nope, p.nope + p.rope.dims), p.rope)
    both = g.linear(h, f"{blk}.attn_kv_a_mqa", p.rank + p.rope.dims)
    latent = g.rms_norm(both.slice(0, p.rank), f"{blk}.attn_kv_a_norm", p.eps)
    k_rope = g.rope(both.slice(p.rank, p.rank + p.rope.dims).reshape(1, p.rope.dims), p.rope)
    attend = _absorbed if g.has(f"{blk}.attn_k_b") else _expanded
    return attend(g, blk, p, q_nope, q_rope, latent, k_rope)


def _queries(g: Builder, h: Value, blk: str, p: _Latent) -> Value:
    """Queries [T, num_heads, nope + rope], through a bottleneck of their own except in the small models."""
    size = p.num_heads * (p.nope + p.rope.dims)
    if g.has(f"{blk}.attn_q_a"):
        h = g.rms_norm(g.linear(h, f"{blk}.attn_q_a"), f"{blk}.attn_q_a_norm", p.eps)
        q = g.linear(h, f"{blk}.attn_q_b", size)
    else:
        q = g.linear(h, f"{blk}.attn_q", size)
    return q.reshape(p.num_heads, p.nope + p.rope.dims)


def _absorbed(
    g: Builder, blk: str, p: _Latent, q_nope: Value, q_rope: Value, latent: Value, k_rope: Value
) -> Value:
    """Queries move into the latent's space, so that the cache holds one latent and not every head's keys."""
    q = g.concat(g.head_linear(q_nope, f"{blk}.attn_k_b", p.rank), q_rope)
    k = g.concat(latent.reshape(1, p.rank), k_rope)
    a = g.attention(q, k, None, scale=p.scale, value_dim=p.rank)
    return g.head_linear(a, f"{blk}.attn_v_b", p.value_dim)


def _expanded(
    g: Builder, blk: str, p: _Latent, q_nope: Value, q_rope: Value, latent: Value, k_rope: Value
) -> Value:
    """Files from before the matrices were split: every head's keys and values are written out and kept."""
    kv = g.linear(latent, f"{blk}.attn_kv_b", p.num_heads * (p.nope + p.value_dim))
    kv = kv.reshape(p.num_heads, p.nope + p.value_dim)
    k = g.concat(kv.slice(0, p.nope), g.repeat_heads(k_rope, p.num_heads))
    v = kv.slice(p.nope, p.nope + p.value_dim)
    return g.attention(g.concat(q_nope, q_rope), k, v, scale=p.scale)
