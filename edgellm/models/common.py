"""What many families read from their metadata in the same way."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import FormatError, UnsupportedError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value, Weight
from edgellm.graph.ops import RopeConfig

_MAX_CONTEXT = 1 << 24


@dataclass(frozen=True)
class TransformerSizes:
    """The sizes that every transformer has."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float


def positive(meta: Metadata, key: str, default: int | None = None) -> int:
    """An integer setting that must be at least 1."""
    value = meta.int(key, default)
    if value < 1:
        raise FormatError(f"{meta.name(key)} is {value}; it must be at least 1")
    return value


def transformer_sizes(meta: Metadata, g: Builder) -> TransformerSizes:
    """Read the sizes. Raises FormatError where they contradict each other."""
    hidden, heads = positive(meta, "embedding_length"), positive(meta, "attention.head_count")
    head_dim = positive(meta, "attention.key_length", hidden // heads)
    if meta.int("attention.value_length", head_dim) != head_dim:
        raise UnsupportedError(
            f"{meta.name('attention.value_length')} differs from the key length {head_dim}; edgellm needs them equal here"
        )
    return TransformerSizes(
        num_layers=positive(meta, "block_count"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=positive(meta, "attention.head_count_kv", heads),
        head_dim=head_dim,
        eps=meta.float("attention.layer_norm_rms_epsilon", 1e-5),
    )


def rope_config(meta: Metadata, style: str, head_dim: int, theta: float | None = None) -> RopeConfig:
    """Rope as the metadata describes it: its base, its dimensions and its scaling."""
    assert style in ("norm", "neox")
    kind = meta.str("rope.scaling.type", "none")
    factor = meta.float("rope.scaling.factor", 0.0) or meta.float("rope.scale_linear", 0.0) or 1.0
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise UnsupportedError(f"{meta.name('rope.scaling.type')} is {kind!r}; supported are none, linear, yarn, longrope")
    yarn = kind == "yarn"
    return RopeConfig(
        dims=meta.int("rope.dimension_count", head_dim),
        theta=theta if theta is not None else meta.float("rope.freq_base", 10000.0),
        style=style,
        scale=1.0 / factor if kind in ("linear", "yarn") else 1.0,
        ext_factor=1.0 if yarn else 0.0,
        attn_factor=meta.float("rope.scaling.attn_factor", 1.0),
        beta_fast=meta.float("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=meta.float("rope.scaling.yarn_beta_slow", 1.0),
        original_context=meta.int("rope.scaling.original_context_length", context_length(meta)),
    )


def rope_factors(g: Builder) -> Weight | None:
    """The divisors of the rope frequencies that Llama 3 files carry."""
    return g.optional("rope_freqs", None)


def context_length(meta: Metadata) -> int:
    """Positions that the model was made for."""
    length = positive(meta, "context_length")
    if length > _MAX_CONTEXT:
        raise FormatError(f"{meta.name('context_length')} is {length}; at most {_MAX_CONTEXT} is possible")
    return length


def output_logits(meta: Metadata, g: Builder, x: Value) -> Graph:
    """The last projection, tied to the embeddings where the file has no `output`, and the finished graph."""
    logits = g.linear(x, "output" if g.has("output") else "token_embd")
    assert isinstance(logits.shape[-1], int)
    return g.finish(logits, vocab_size=logits.shape[-1], context_length=context_length(meta))
