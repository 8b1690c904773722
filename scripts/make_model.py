#!/usr/bin/env python3
"""Write a GGUF file of random weights in the shape of a real model, to measure speed and memory with.

    .venv/bin/python scripts/make_model.py llama-3.2-1b Q4_K_M out.gguf

The weights are noise of a sane size and the vocabulary is numbers, so what the model says means nothing.
Types are mixed as llama.cpp mixes them; where a row is no multiple of 256, the K types fall back as they
do there.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgellm import quants
from edgellm.gguf import TensorType, write_gguf


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    theta: float


SHAPES = {
    "llama-3.2-1b": Shape("llama", 16, 2048, 32, 8, 64, 8192, 128256, 500000.0),
    "llama-3.2-3b": Shape("llama", 28, 3072, 24, 8, 128, 8192, 128256, 500000.0),
    "qwen3-0.6b": Shape("qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 1000000.0),
    "smollm2-135m": Shape("llama", 30, 576, 9, 3, 64, 1536, 49152, 100000.0),
}
# A mix: the type of most tensors, of attn_v and ffn_down in half of the layers, and of the embeddings.
MIXES = {
    "Q4_0": ("Q4_0", "Q4_0", "Q6_K"),
    "Q4_K_M": ("Q4_K", "Q6_K", "Q6_K"),
    "Q5_K_M": ("Q5_K", "Q6_K", "Q6_K"),
    "Q6_K": ("Q6_K", "Q6_K", "Q6_K"),
    "Q8_0": ("Q8_0", "Q8_0", "Q8_0"),
    "BF16": ("BF16", "BF16", "BF16"),
}
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def kind_for(name: str, columns: int) -> TensorType:
    """The type itself, or what takes its place in rows that are no multiple of its block."""
    return TensorType[FALLBACK[name] if name in FALLBACK and columns % 256 else name]


def noise(
    kind: TensorType, rows: int, columns: int, rng: np.random.Generator
) -> tuple[TensorType, NDArray[np.uint8]]:
    """Random blocks whose values have about the size of a trained layer's."""
    quant = quants.get(kind)
    if quant.block.names is None:
        values = rng.standard_normal((rows, columns), np.float32) * np.float32(columns**-0.5)
        return kind, quant.quantize(values)
    raw = np.frombuffer(rng.bytes(rows * quant.row_bytes(columns)), np.uint8).copy()
    blocks = raw.view(quant.block)
    scales = {"Q4_K": 1 / 150, "Q5_K": 1 / 300, "Q6_K": 1 / 1200, "Q8_0": 1 / 73}.get(kind.name, 1 / 5)
    blocks["d"] = np.float16(scales * columns**-0.5)
    for name in {"m", "dmin"} & set(quant.block.names):
        blocks[name] = np.float16((-7.5 if name == "m" else 7.5) * scales * columns**-0.5)
    return kind, raw.reshape(rows, -1)


def tensors(shape: Shape, mix: str) -> dict[str, object]:
    """All tensors of a model, by GGUF's names."""
    rng = np.random.default_rng(0)
    most, more, embedding = MIXES[mix]
    made: dict[str, object] = {}

    def matrix(name: str, kind: str, rows: int, columns: int) -> None:
        made[name + ".weight"] = noise(kind_for(kind, columns), rows, columns, rng)

    def vector(name: str, size: int) -> None:
        made[name + ".weight"] = np.ones(size, np.float32)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrix("token_embd", embedding, shape.vocab, shape.hidden)
    vector("output_norm", shape.hidden)
    for i in range(shape.layers):
        better = more if i < shape.layers // 8 or i >= 7 * shape.layers // 8 or i % 3 == 2 else most
        vector(f"blk.{i}.attn_norm", shape.hidden)
        vector(f"blk.{i}.ffn_norm", shape.hidden)
        if shape.architecture == "qwen3":
            vector(f"blk.{i}.attn_q_norm", shape.head_dim)
            vector(f"blk.{i}.attn_k_norm", shape.head_dim)
        matrix(f"blk.{i}.attn_q", most, q, shape.hidden)
        matrix(f"blk.{i}.attn_k", most, kv, shape.hidden)
        matrix(f"blk.{i}.attn_v", better, kv, shape.hidden)
        matrix(f"blk.{i}.attn_output", most, shape.hidden, q)
        matrix(f"blk.{i}.ffn_gate", most, shape.ffn, shape.hidden)
        matrix(f"blk.{i}.ffn_up", most, shape.ffn, shape.hidden)
        matrix(f"blk.{i}.ffn_down", better, shape.hidden, shape.ffn)
    return made


def metadata(name: str, shape: Shape) -> dict[str, object]:
    """The settings that a loader needs, and a vocabulary of numbers."""
    a = shape.architecture
    return {
        "general.name": f"{name} of random weights",
        f"{a}.context_length": 8192,
        f"{a}.embedding_length": shape.hidden,
        f"{a}.block_count": shape.layers,
        f"{a}.feed_forward_length": shape.ffn,
        f"{a}.attention.head_count": shape.heads,
        f"{a}.attention.head_count_kv": shape.kv_heads,
        f"{a}.attention.key_length": shape.head_dim,
        f"{a}.attention.value_length": shape.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.rope.freq_base": shape.theta,
        f"{a}.rope.dimension_count": shape.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [str(i) for i in range(shape.vocab)],
        "tokenizer.ggml.merges": ["1 0"],
        "tokenizer.ggml.token_type": [1] * shape.vocab,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def main() -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("mix", choices=MIXES)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    write_gguf(options.out, shape.architecture, metadata(options.shape, shape), tensors(shape, options.mix))  # type: ignore[arg-type]
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
