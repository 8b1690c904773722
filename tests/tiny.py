"""A tiny llama of random weights, in any mix of tensor types, written as a real GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgellm import quants
from edgellm.gguf import TensorType, write_gguf

HIDDEN, HEADS, KV_HEADS, FFN, VOCAB, LAYERS, CONTEXT = 256, 8, 2, 512, 300, 2, 1024


def tiny_llama(
    path: Path,
    kinds: dict[str, TensorType] | None = None,
    default: TensorType = TensorType.F32,
    metadata: dict[str, object] | None = None,
    seed: int = 0,
    shape: tuple[int, int, int, int] = (HIDDEN, HEADS, KV_HEADS, FFN),
    tied: bool = True,
) -> Path:
    """Write it to `path`. `kinds` gives a tensor's type by the last part of its name (attn_q, ffn_down,
    token_embd, ...); `shape` the sizes that the constants above name. If not `tied`, it has an output matrix.
    """
    hidden, heads, kv_heads, ffn = shape
    rng = np.random.default_rng(seed)
    kinds = kinds or {}
    tensors: dict[str, object] = {}

    def matrix(name: str, rows: int, columns: int) -> None:
        kind = kinds.get(name.split(".")[-2], default)
        values = (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
        tensors[name] = (kind, encode(kind, values, rng))

    def vector(name: str, size: int) -> None:
        tensors[name] = (1 + 0.1 * rng.standard_normal(size)).astype(np.float32)

    head_dim = hidden // heads
    matrix("token_embd.weight", VOCAB, hidden)
    if not tied:
        matrix("output.weight", VOCAB, hidden)
    vector("output_norm.weight", hidden)
    for i in range(LAYERS):
        vector(f"blk.{i}.attn_norm.weight", hidden)
        matrix(f"blk.{i}.attn_q.weight", hidden, hidden)
        matrix(f"blk.{i}.attn_k.weight", kv_heads * head_dim, hidden)
        matrix(f"blk.{i}.attn_v.weight", kv_heads * head_dim, hidden)
        matrix(f"blk.{i}.attn_output.weight", hidden, hidden)
        vector(f"blk.{i}.ffn_norm.weight", hidden)
        matrix(f"blk.{i}.ffn_gate.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_up.weight", ffn, hidden)
        matrix(f"blk.{i}.ffn_down.weight", hidden, ffn)
    sizes = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": hidden,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": ffn,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
    }
    write_gguf(path, "llama", sizes | (metadata or {}), tensors)  # type: ignore[arg-type]
    return path


def encode(kind: TensorType, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Values in a type; for types that edgellm only reads, random blocks of about the same size."""
    quant = quants.get(kind)
    if quant.can_quantize:
        return quant.quantize(values)
    raw = rng.integers(0, 256, (len(values), quant.row_bytes(values.shape[1])), np.uint8)
    blocks = raw.reshape(-1, quant.block.itemsize).view(quant.block)
    blocks["d"] = np.float16(values.std() / 1500)
    if "dmin" in quant.block.names:
        blocks["dmin"] = np.float16(7.5 * values.std() / 1500)  # codes are around 7.5: values around zero
    return raw
