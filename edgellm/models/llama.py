"""Llama and its relatives (Llama 2 and 3, Mistral, SmolLM2, TinyLlama). Touvron et al. 2023, https://arxiv.org/abs/2302.13971"""

from __future__ import annotations

from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph
from edgellm.models import architecture
from edgellm.models.common import output_logits, rope_config, rope_factors, transformer_sizes


@architecture("llama")
def llama(meta: Metadata, g: Builder) -> Graph:
    """Pre-norm decoder: attention and a gated feed-forward, each added to the residual stream."""
    p = transformer_sizes(meta, g)
    rope, factors = rope_config(meta, "norm", p.head_dim), rope_factors(g)

    x = g.embed("token_embd", p.hidden_size)
    for i in range(p.num_layers):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        q = g.linear(h, f"blk.{i}.attn_q", p.num_heads * p.head_dim).reshape(p.num_heads, p.head_dim)
        k = g.linear(h, f"blk.{i}.attn_k", p.num_kv_heads * p.head_dim).reshape(p.num_kv_heads, p.head_dim)
        v = g.linear(h, f"blk.{i}.attn_v", p.num_kv_heads * p.head_dim).reshape(p.num_kv_heads, p.head_dim)
        q, k = g.rope(q, rope, factors), g.rope(k, rope, factors)
        a = g.attention(q, k, v, scale=p.head_dim**-0.5)
        x = x + g.linear(a, f"blk.{i}.attn_output", p.hidden_size)

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", p.eps)
        gate, up = g.linear(h, f"blk.{i}.ffn_gate"), g.linear(h, f"blk.{i}.ffn_up")
        x = x + g.linear(g.glu(gate, up, "silu"), f"blk.{i}.ffn_down", p.hidden_size)

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, x)
