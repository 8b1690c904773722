"""Qwen 2, 2.5 and 3, dense and with experts; of the VL models, the text side. Yang et al. 2025, https://arxiv.org/abs/2505.09388"""

from __future__ import annotations

from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value
from edgellm.graph.ops import Route
from edgellm.models import architecture
from edgellm.models.blocks import experts, gated_feed_forward, queries_keys_values, routing, shared_expert
from edgellm.models.common import (
    output_logits,
    positive,
    rope_config,
    rope_factors,
    transformer_sizes,
)


@architecture("qwen2", "qwen3", "qwen3vl")
def qwen(meta: Metadata, g: Builder) -> Graph:
    """Llama's shape; Qwen 2 has biases on q, k and v, Qwen 3 norms q and k in each head."""
    return _decoder(meta, g, 0, None)


@architecture("qwen2moe")
def qwen2moe(meta: Metadata, g: Builder) -> Graph:
    """Experts whose weights are not normalized, and one that every token goes through."""
    return _decoder(meta, g, positive(meta, "expert_count"), routing(meta, normalize=False))


@architecture("qwen3moe", "qwen3vlmoe")
def qwen3moe(meta: Metadata, g: Builder) -> Graph:
    """Experts in place of the feed-forward."""
    return _decoder(meta, g, positive(meta, "expert_count"), routing(meta))


def _decoder(meta: Metadata, g: Builder, num_experts: int, route: Route | None) -> Graph:
    p = transformer_sizes(meta)
    rope, factors = rope_config(meta, "neox", p.head_dim), rope_factors(meta, g)

    x = g.embed("token_embd", p.hidden_size)
    for i in range(p.num_layers):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        q, k, v = queries_keys_values(g, h, f"blk.{i}", p)
        if g.has(f"blk.{i}.attn_q_norm"):
            q, k = g.rms_norm(q, f"blk.{i}.attn_q_norm", p.eps), g.rms_norm(k, f"blk.{i}.attn_k_norm", p.eps)
        q, k = g.rope(q, rope, factors), g.rope(k, rope, factors)
        a = g.attention(q, k, v, scale=p.head_dim**-0.5)
        x = x + g.linear(a, f"blk.{i}.attn_output", p.hidden_size)

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", p.eps)
        x = x + _feed_forward(g, h, f"blk.{i}", num_experts, route)

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, x)


def _feed_forward(g: Builder, h: Value, blk: str, num_experts: int, route: Route | None) -> Value:
    if route is None:
        return gated_feed_forward(g, h, blk)
    y = experts(g, h, blk, num_experts, route)
    return y + shared_expert(g, h, blk) if g.has(f"{blk}.ffn_up_shexp") else y
