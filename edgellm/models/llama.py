"""Llama and its relatives: Llama 2 and 3, Mistral, Mixtral, SmolLM 2 and 3, TinyLlama, InternLM 2, Granite.

Touvron et al. 2023, https://arxiv.org/abs/2302.13971; Mixtral's experts: https://arxiv.org/abs/2401.04088
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import FormatError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value
from edgellm.models import architecture
from edgellm.models.blocks import (
    experts,
    gated_feed_forward,
    queries_keys_values,
    routing,
    shared_expert,
)
from edgellm.models.common import finite, output_logits, rope_config, rope_factors, transformer_sizes

_LEAST_DIVISOR = 1e-38


@dataclass(frozen=True)
class _Kind:
    """What sets a relative apart; 0 stands for "not so"."""

    plain_every: int = 0  # of this many layers the last goes without rope
    embedding_scale: float = 0.0
    residual_scale: float = 0.0
    attention_scale: float = 0.0
    logit_scale: float = 0.0  # divides


@architecture("llama", "internlm2")
def llama(meta: Metadata, g: Builder) -> Graph:
    """Pre-norm decoder: attention and a gated feed-forward, each added to the residual stream."""
    return _decoder(meta, g, _Kind())


@architecture("smollm3")
def smollm3(meta: Metadata, g: Builder) -> Graph:
    """Every fourth layer knows no positions. Yang et al. 2025, https://arxiv.org/abs/2501.18795"""
    return _decoder(meta, g, _Kind(plain_every=4))


@architecture("granite", "granitemoe")
def granite(meta: Metadata, g: Builder) -> Graph:
    """Fixed factors on embeddings, scores, residuals and logits."""
    kind = _Kind(
        plain_every=0 if meta.bool("rope.scaling.finetuned", True) else 1,
        embedding_scale=finite(meta, "embedding_scale", 0.0),
        residual_scale=finite(meta, "residual_scale", 0.0),
        attention_scale=finite(meta, "attention.scale", 0.0),
        logit_scale=_divisor(meta, "logit_scale"),
    )
    return _decoder(meta, g, kind)


def _divisor(meta: Metadata, key: str) -> float:
    """A setting that divides: 0 (no division), or one whose reciprocal is an f32."""
    value = finite(meta, key, 0.0)
    if 0 < abs(value) < _LEAST_DIVISOR:
        raise FormatError(
            f"{meta.name(key)} is {value:g}, and divides: it must be 0, or at least {_LEAST_DIVISOR:g}, "
            "positive or negative"
        )
    return value


def _decoder(meta: Metadata, g: Builder, kind: _Kind) -> Graph:
    p = transformer_sizes(meta)
    rope, factors = rope_config(meta, "norm", p.head_dim), rope_factors(meta, g)
    scale = kind.attention_scale or p.head_dim**-0.5

    x = _scaled(g.embed("token_embd", p.hidden_size), kind.embedding_scale)
    for i in range(p.num_layers):
        h = g.rms_norm(x, f"blk.{i}.attn_norm", p.eps)
        q, k, v = queries_keys_values(g, h, f"blk.{i}", p)
        if not kind.plain_every or (i + 1) % kind.plain_every:
            q, k = g.rope(q, rope, factors), g.rope(k, rope, factors)
        a = g.linear(g.attention(q, k, v, scale=scale), f"blk.{i}.attn_output", p.hidden_size)
        x = x + _scaled(a, kind.residual_scale)

        h = g.rms_norm(x, f"blk.{i}.ffn_norm", p.eps)
        x = x + _scaled(_feed_forward(meta, g, h, f"blk.{i}"), kind.residual_scale)

    x = g.rms_norm(g.select_rows(x), "output_norm", p.eps)
    return output_logits(meta, g, _scaled(x, 1.0 / kind.logit_scale if kind.logit_scale else 0.0))


def _scaled(x: Value, factor: float) -> Value:
    return x * factor if factor not in (0.0, 1.0) else x


def _feed_forward(meta: Metadata, g: Builder, h: Value, blk: str) -> Value:
    num_experts = meta.int("expert_count", 0)
    if not num_experts:
        return gated_feed_forward(g, h, blk)
    y = experts(g, h, blk, num_experts, routing(meta))
    return y + shared_expert(g, h, blk) if g.has(f"{blk}.ffn_up_shexp") else y
