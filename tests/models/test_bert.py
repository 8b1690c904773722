"""The encoder against a plain twin: lists of texts in one step, and every way of pooling."""

import numpy as np
import pytest
from naive import naive_bert
from support import nmse

from edgellm import models
from edgellm.backends.base import BackendConfig, Batch, SequenceRows
from edgellm.backends.reference import ReferenceBackend
from edgellm.errors import FormatError, UnsupportedError
from edgellm.gguf import open_gguf, write_gguf

HIDDEN, HEADS, FFN, VOCAB, LAYERS, CONTEXT = 24, 3, 40, 50, 2, 32
TEXTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7]]


def tiny_bert(seed=3, types=True, fused=False):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    def norm(name):
        return {f"{name}.weight": 1 + 0.1 * draw(HIDDEN), f"{name}.bias": 0.1 * draw(HIDDEN)}

    def dense(name, rows, columns):
        return {f"{name}.weight": draw(rows, columns), f"{name}.bias": 0.1 * draw(rows)}

    tensors = {"token_embd.weight": draw(VOCAB, HIDDEN), "position_embd.weight": draw(CONTEXT, HIDDEN)}
    tensors |= norm("token_embd_norm") | ({"token_types.weight": draw(2, HIDDEN)} if types else {})
    for i in range(LAYERS):
        if fused:
            tensors |= dense(f"blk.{i}.attn_qkv", 3 * HIDDEN, HIDDEN)
        else:
            for part in "qkv":
                tensors |= dense(f"blk.{i}.attn_{part}", HIDDEN, HIDDEN)
        tensors |= dense(f"blk.{i}.attn_output", HIDDEN, HIDDEN) | norm(f"blk.{i}.attn_output_norm")
        tensors |= dense(f"blk.{i}.ffn_up", FFN, HIDDEN) | dense(f"blk.{i}.ffn_down", HIDDEN, FFN)
        tensors |= norm(f"blk.{i}.layer_output_norm")
    return tensors


def load(path, tensors, **settings):
    sizes = {
        "context_length": CONTEXT,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "attention.head_count": HEADS,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
    }
    write_gguf(path, "bert", {f"bert.{k}": v for k, v in (sizes | settings).items()}, tensors)
    with open_gguf(path) as file:
        return ReferenceBackend(models.build(file), file, BackendConfig(num_pages=3))


def embed(backend, texts):
    rows, start = [], 0
    for i, text in enumerate(texts):
        rows.append(SequenceRows(start, len(text), 0, [i]))
        start += len(text)
    return backend.execute(Batch([token for text in texts for token in text], rows, []))


@pytest.mark.parametrize(("number", "pooling"), [(1, "mean"), (2, "first"), (3, "last")])
def test_vectors_are_those_of_the_twin(tmp_path, number, pooling):
    tensors = tiny_bert()
    got = embed(load(tmp_path / "bert.gguf", tensors, pooling_type=number), TEXTS)
    want = np.array([naive_bert(tensors, text, HEADS, LAYERS, pooling) for text in TEXTS])
    assert got.shape == (len(TEXTS), HIDDEN)
    assert nmse(got, want) < 1e-11


def test_a_token_sees_what_comes_after_it(tmp_path):
    backend = load(tmp_path / "bert.gguf", tiny_bert(), pooling_type=2)
    assert nmse(embed(backend, [[3, 1, 4]]), embed(backend, [[3, 1, 5]])) > 1e-6


def test_without_token_types_and_with_one_projection(tmp_path):
    tensors = tiny_bert(types=False, fused=True)
    got = embed(load(tmp_path / "bert.gguf", tensors), TEXTS)
    split = dict(tensors)
    for i in range(LAYERS):
        for kind in ("weight", "bias"):
            parts = np.split(split.pop(f"blk.{i}.attn_qkv.{kind}"), 3)
            split |= {f"blk.{i}.attn_{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)}
    want = np.array([naive_bert(split, text, HEADS, LAYERS, "mean") for text in TEXTS])
    assert nmse(got, want) < 1e-11


def test_an_unknown_pooling_names_the_known(tmp_path):
    with pytest.raises(UnsupportedError, match=r"bert\.pooling_type is 4; supported are 1 \(mean\)"):
        load(tmp_path / "bert.gguf", tiny_bert(), pooling_type=4)


def test_too_few_positions(tmp_path):
    with pytest.raises(FormatError, match=r"'position_embd\.weight' has 32 rows; at least 64"):
        load(tmp_path / "bert.gguf", tiny_bert(), context_length=64)
