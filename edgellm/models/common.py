"""What many families read from their metadata in the same way: sizes, rope, and the way out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgellm.errors import FormatError, UnsupportedError
from edgellm.gguf import Metadata
from edgellm.graph import Builder, Graph, Value, Weight
from edgellm.graph.ops import RopeConfig

_MAX_CONTEXT = 1 << 24
_MAX_LAYERS = 1 << 12
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True)
class TransformerSizes:
    """The sizes that every transformer has."""

    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # of queries and keys
    value_dim: int
    eps: float


def positive(meta: Metadata, key: str, default: int | None = None) -> int:
    """An integer setting that must be at least 1."""
    value = meta.int(key, default)
    if value < 1:
        raise FormatError(f"{meta.name(key)} is {value}; it must be at least 1")
    return value


def positive_float(meta: Metadata, key: str, default: float | None = None, above: float = 0.0) -> float:
    """A setting that must be a finite number greater than `above`."""
    value = meta.float(key, default)
    if not above < value < math.inf:
        raise FormatError(f"{meta.name(key)} is {value}; it must be a finite number greater than {above:g}")
    return value


def finite(meta: Metadata, key: str, default: float) -> float:
    """A setting that must be a finite number."""
    value = meta.float(key, default)
    if not math.isfinite(value):
        raise FormatError(f"{meta.name(key)} is {value}; it must be a finite number")
    return value


def num_layers(meta: Metadata) -> int:
    """Layers to run: `block_count`, less the layers at the end that only predict further tokens."""
    count = positive(meta, "block_count")
    ahead = meta.int("nextn_predict_layers", 0)
    if count > _MAX_LAYERS or not 0 <= ahead < count:
        raise FormatError(
            f"{meta.name('block_count')} is {count}, {meta.name('nextn_predict_layers')} {ahead}; "
            f"from 1 to {_MAX_LAYERS} layers are possible"
        )
    return count - ahead


def same_in_all_layers(meta: Metadata, key: str, default: int | None = None) -> int:
    """An integer of at least 1, for which files may give an array with an entry for each layer."""
    values = set(meta.ints(key, positive(meta, "block_count"), default))
    if len(values) != 1 or min(values) < 1:
        raise UnsupportedError(
            f"{meta.name(key)} is {sorted(values)}; this architecture needs the same number, at least 1, "
            "in all layers"
        )
    return values.pop()


def transformer_sizes(meta: Metadata) -> TransformerSizes:
    """Read the sizes. Raises FormatError for one that is missing or below 1."""
    layers, hidden = num_layers(meta), positive(meta, "embedding_length")
    heads = same_in_all_layers(meta, "attention.head_count")
    if heads > hidden:
        raise FormatError(
            f"{meta.name('attention.head_count')} is {heads}, and {meta.name('embedding_length')} {hidden}: "
            "a head must have at least one dimension"
        )
    head_dim = positive(meta, "attention.key_length", hidden // heads)
    return TransformerSizes(
        num_layers=layers,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=same_in_all_layers(meta, "attention.head_count_kv", heads),
        head_dim=head_dim,
        value_dim=positive(meta, "attention.value_length", head_dim),
        eps=rms_eps(meta),
    )


def rms_eps(meta: Metadata) -> float:
    """What RMS norms add to the mean square."""
    eps = finite(meta, "attention.layer_norm_rms_epsilon", 1e-5)
    if eps < 0:
        raise FormatError(
            f"{meta.name('attention.layer_norm_rms_epsilon')} is {eps}; it must not be negative"
        )
    return eps


def rope_config(
    meta: Metadata, style: Literal["norm", "neox"], head_dim: int, base: str = "rope.freq_base"
) -> RopeConfig:
    """Rope as the metadata describes it: its base, its dimensions and its scaling."""
    kind = meta.str("rope.scaling.type", "linear")
    if kind not in _ROPE_SCALINGS:
        raise UnsupportedError(
            f"{meta.name('rope.scaling.type')} is {kind!r}; supported are {', '.join(_ROPE_SCALINGS)}"
        )
    factor = 1.0 if kind == "none" else _rope_factor(meta)
    ext_factor = finite(meta, "rope.scaling.yarn_ext_factor", 1.0 if kind == "yarn" else 0.0)
    return RopeConfig(
        dims=positive(meta, "rope.dimension_count", head_dim),
        theta=positive_float(meta, base, 10000.0, above=1.0),
        style=style,
        scale=1.0 / factor,
        ext_factor=ext_factor,
        attn_factor=finite(meta, "rope.scaling.attn_factor", 1.0),
        beta_fast=positive_float(meta, "rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=positive_float(meta, "rope.scaling.yarn_beta_slow", 1.0),
        original_context=positive(meta, "rope.scaling.original_context_length", context_length(meta)),
    )


def _rope_factor(meta: Metadata) -> float:
    """By how much the context was stretched; 1 where it was not."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in meta else "rope.scale_linear"
    return positive_float(meta, key, 1.0, above=1e-3) if meta.float(key, 0.0) != 0.0 else 1.0


def rope_factors(meta: Metadata, g: Builder) -> Weight | None:
    """The divisors of the rope frequencies that files of Llama 3 and long-context models carry."""
    if g.has("rope_freqs"):
        return g.weight("rope_freqs", None)
    trained = meta.int("rope.scaling.original_context_length", context_length(meta))
    return g.optional("rope_factors_long" if context_length(meta) > trained else "rope_factors_short", None)


def context_length(meta: Metadata) -> int:
    """Positions that the model was made for."""
    length = positive(meta, "context_length")
    if length > _MAX_CONTEXT:
        raise FormatError(f"{meta.name('context_length')} is {length}; at most {_MAX_CONTEXT} is possible")
    return length


def output_logits(meta: Metadata, g: Builder, x: Value, softcap: float = 0.0) -> Graph:
    """The last projection, tied to the embeddings where the file has no `output`, and the finished graph.

    `x` has a row for each that was selected, [O, hidden_size]; `softcap` bends the logits where it is not 0.
    """
    vocab_size = g.shape_of("token_embd")[0]
    logits = g.linear(x, "output" if g.has("output") else "token_embd", vocab_size)
    if softcap:
        logits = g.softcap(logits, softcap)
    return g.finish(logits, vocab_size=vocab_size, context_length=context_length(meta))
