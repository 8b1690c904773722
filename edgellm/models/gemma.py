"""Gemma 1, 2 and 3. Gemma 3 technical report, 2025, https://arxiv.org/abs/2503.19786"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph
from edgellm.graph.ops import RopeConfig
from edgellm.models import architecture
from edgellm.models.blocks import gated_feed_forward, queries_keys_values
from edgellm.models.common import (
    TransformerSizes,
    finite,
    output_logits,
    positive,
    rope_config,
    transformer_sizes,
)


@dataclass(frozen=True)
class _Kind:
    """What sets one Gemma apart from the next."""

    local_period: int  # of this many layers, all but the last look only into the window; 1: none does
    window: int  # that files mean which do not say; 0: none
    layers_27b: int  # layers of the size that scales its queries by another dimension
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    local_base: bool = False  # whether local layers turn by a rope base of their own


@architecture("gemma")
def gemma(meta: Metadata, g: Builder) -> Graph:
    """Llama's shape with GELU gates, embeddings scaled by sqrt(hidden_size), and the output tied to them."""
    return _decoder(meta, g, _Kind(local_period=1, window=0, layers_27b=0))


@architecture("gemma2")
def gemma2(meta: Metadata, g: Builder) -> Graph:
    """Norms after each part too, every second layer local, and soft caps on scores and logits."""
    kind = _Kind(local_period=2, window=4096, layers_27b=46, attention_softcap=50.0, logit_softcap=30.0)
    return _decoder(meta, g, kind)


@architecture("gemma3")
def gemma3(meta: Metadata, g: Builder) -> Graph:
    """Norms of q and k in place of the caps, and five local layers to each global one."""
    return _decoder(meta, g, _Kind(local_period=6, window=0, layers_27b=62, local_base=True))


def _decoder(meta: Metadata, g: Builder, kind: _Kind) -> Graph:
    p = transformer_sizes(meta)
    window, local = _local_layers(meta, p.num_layers, kind)
    global_rope, local_rope = _ropes(meta, p, kind)
    softcap = (
        finite(meta, "attn_logit_softcapping", kind.attention_softcap) if kind.attention_softcap else 0.0
    )
    scale = _attention_scale(p, kind)

    x = g.embed("token_embd", p.hidden_size) * p.hidden_size**0.5
    for i in range(p.num_layers):
        rope = local_rope if local[i] else global_rope
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        q, k, v = queries_keys_values(g, h, f"blk.{i}", p)
        if g.has(f"blk.{i}.attn_q_norm"):
            q, k = g.rms_norm(q, f"blk.{i}.attn_q_norm", p.eps), g.rms_norm(k, f"blk.{i}.attn_k_norm", p.eps)
        q, k = g.rope(q, rope), g.rope(k, rope)
        a = g.attention(q, k, v, scale=scale, window=window if local[i] else 0, softcap=softcap)
        a = g.linear(a, f"blk.{i}.attn_output", p.hidden_size)
        if g.has(f"blk.{i}.post_attention_norm"):
            a = g.rms_norm(a, f"blk.{i}.post_attention_norm", p.eps)
        x = x + a

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", p.eps)
        f = gated_feed_forward(g, h, f"blk.{i}", "gelu_tanh")
        if g.has(f"blk.{i}.post_ffw_norm"):
            f = g.rms_norm(f, f"blk.{i}.post_ffw_norm", p.eps)
        x = x + f

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, x, finite(meta, "final_logit_softcapping", kind.logit_softcap))


def _local_layers(meta: Metadata, num_layers: int, kind: _Kind) -> tuple[int, list[bool]]:
    """The window, and which layers keep to it: by the file's period, or its entry for each layer."""
    key = "attention.sliding_window_pattern"
    window = meta.int("attention.sliding_window", kind.window)
    if kind.local_period == 1 or window == 0:
        return 0, [False] * num_layers
    window = positive(meta, "attention.sliding_window", kind.window)
    if key in meta and not isinstance(meta[key], int):
        return window, [bool(entry) for entry in meta.get_array(key)]
    period = positive(meta, key, kind.local_period)
    return window, [i % period != period - 1 for i in range(num_layers)]


def _ropes(meta: Metadata, p: TransformerSizes, kind: _Kind) -> tuple[RopeConfig, RopeConfig]:
    """Rope of global and of local layers; a stretched context stretches the global ones only."""
    everywhere = rope_config(meta, "neox", p.head_dim)
    if not kind.local_base:
        return everywhere, everywhere
    theirs = rope_config(meta, "neox", p.head_dim, base="rope.freq_base_swa")
    return everywhere, RopeConfig(dims=theirs.dims, theta=theirs.theta, style="neox")


def _attention_scale(p: TransformerSizes, kind: _Kind) -> float:
    """1 / sqrt(head_dim), but for the 27B models 1 / sqrt(hidden_size / num_heads)."""
    size = p.hidden_size // p.num_heads if p.num_layers == kind.layers_27b else p.head_dim
    return float(size**-0.5)
