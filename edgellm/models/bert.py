"""BERT and the encoders of its shape (MiniLM, BGE, E5, GTE). Devlin et al. 2018, https://arxiv.org/abs/1810.04805"""

from __future__ import annotations

from typing import Literal

from edgellm.errors import UnsupportedError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph
from edgellm.models import architecture
from edgellm.models.blocks import queries_keys_values
from edgellm.models.common import context_length, finite, transformer_sizes

_POOLING: dict[int, Literal["mean", "first", "last"]] = {1: "mean", 2: "first", 3: "last"}


@architecture("bert")
def bert(meta: Metadata, g: Builder) -> Graph:
    """Post-norm encoder over whole texts, pooled to one vector each."""
    p, eps, length = (
        transformer_sizes(meta),
        finite(meta, "attention.layer_norm_epsilon", 1e-12),
        context_length(meta),
    )
    hidden = p.hidden_size

    x = g.embed("token_embd", hidden) + g.embed_by("positions", "position_embd", hidden, length)
    if g.has("token_types"):
        x = x + g.embed_by("token_types", "token_types", hidden)
    x = g.layer_norm(x, "token_embd_norm", eps)
    for i in range(p.num_layers):
        q, k, v = queries_keys_values(g, x, f"blk.{i}", p)
        a = g.attention(q, k, v, scale=p.head_dim**-0.5, causal=False)
        x = g.layer_norm(x + g.linear(a, f"blk.{i}.attn_output", hidden), f"blk.{i}.attn_output_norm", eps)

        f = g.activation(g.linear(x, f"blk.{i}.ffn_up"), "gelu")
        x = g.layer_norm(x + g.linear(f, f"blk.{i}.ffn_down", hidden), f"blk.{i}.layer_output_norm", eps)

    vocab_size = g.shape_of("token_embd")[0]
    return g.finish(g.pool(x, _pooling(meta)), vocab_size=vocab_size, context_length=length, causal=False)


def _pooling(meta: Metadata) -> Literal["mean", "first", "last"]:
    kind = meta.int("pooling_type", 1)
    if kind not in _POOLING:
        known = ", ".join(f"{number} ({name})" for number, name in _POOLING.items())
        raise UnsupportedError(f"{meta.name('pooling_type')} is {kind}; supported are {known}")
    return _POOLING[kind]
