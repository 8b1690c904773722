"""Llama and its relatives: Llama 2 and 3, Mistral, Mixtral, SmolLM2, TinyLlama.

Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Mixtral's experts: https://arxiv.org/abs/2401.04088
"""

from __future__ import annotations

from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph
from edgellm.models import architecture
from edgellm.models.blocks import experts, gated_feed_forward, queries_keys_values, routing
from edgellm.models.common import (
    output_logits,
    rope_config,
    rope_factors,
    transformer_sizes,
)


@architecture("llama")
def llama(meta: Metadata, g: Builder) -> Graph:
    """Pre-norm decoder: attention and a gated feed-forward, each added to the residual stream."""
    p = transformer_sizes(meta)
    rope, factors = rope_config(meta, "norm", p.head_dim), rope_factors(meta, g)
    num_experts = meta.int("expert_count", 0)

    x = g.embed("token_embd", p.hidden_size)
    for i in range(p.num_layers):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        q, k, v = queries_keys_values(g, h, f"blk.{i}", p)
        q, k = g.rope(q, rope, factors), g.rope(k, rope, factors)
        a = g.attention(q, k, v, scale=p.head_dim**-0.5)
        x = x + g.linear(a, f"blk.{i}.attn_output", p.hidden_size)

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", p.eps)
        if num_experts:
            x = x + experts(g, h, f"blk.{i}", num_experts, routing(meta))
        else:
            x = x + gated_feed_forward(g, h, f"blk.{i}")

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, x)
