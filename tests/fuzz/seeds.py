"""Sound models, which others are made of."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from edgellm.gguf import TensorType, ValueType
from fuzz.models import Image, Model, write

ARCHS = Path(__file__).resolve().parents[1] / "conformance" / "archs"


@cache
def seed_images() -> list[Image]:
    """The bytes of the seeds."""
    return [write(model) for model in seeds()]


@cache
def seeds() -> list[Model]:
    """A sound model of each architecture, and one of each kind of tokenizer."""
    models = [_of_skeleton(path) for path in sorted(ARCHS.glob("*.json"))]
    first = next(m for m in models if m.architecture() == "llama")
    for tokenizer in (_bpe(), _spm()):
        made = first.copy()
        made.pairs = [p for p in made.pairs if not p[0].startswith("tokenizer.")] + tokenizer
        # The one without tensors is quick, and so are its changes: it stands for many.
        models += [made, *[Model([*made.pairs[:1], *tokenizer], [])] * 4]
    return models


def _of_skeleton(path: Path) -> Model:
    """A conformance case, with the tensors of its first layers only, and few tokens."""
    case = json.loads(path.read_text())
    pairs = []
    for key, kind, value in case["metadata"]:
        typed = [ValueType[kind[0]]] if isinstance(kind, list) else ValueType[kind]
        pairs.append([key, typed, value[:24] if key.startswith("tokenizer.") else value])
    kept = [t for t in case["tensors"] if not t[0].startswith("blk.") or int(t[0].split(".")[1]) < 5]
    for pair in pairs:
        if pair[0].endswith(".block_count") and pair[2] > 5:
            pair[2] = 4
    return Model(pairs, [[name, shape[::-1], int(TensorType[kind]), None] for name, shape, kind in kept])


def _bpe() -> list[list[Any]]:
    tokens = [chr(c) for c in range(0x21, 0x7F)] + [
        "Ġ",
        "he",
        "ll",
        "hell",
        "hello",
        "<|im_end|>",
        "<|im_start|>",
    ]
    kinds = [1] * (len(tokens) - 2) + [3, 3]
    return [
        ["tokenizer.ggml.model", ValueType.STRING, "gpt2"],
        ["tokenizer.ggml.pre", ValueType.STRING, "gpt-2"],
        ["tokenizer.ggml.tokens", [ValueType.STRING], tokens],
        ["tokenizer.ggml.token_type", [ValueType.INT32], kinds],
        ["tokenizer.ggml.merges", [ValueType.STRING], ["h e", "l l", "he ll", "hell o"]],
        ["tokenizer.ggml.eos_token_id", ValueType.UINT32, len(tokens) - 2],
        ["tokenizer.ggml.bos_token_id", ValueType.UINT32, len(tokens) - 1],
        ["tokenizer.ggml.add_bos_token", ValueType.BOOL, 1],
        ["tokenizer.chat_template", ValueType.STRING, "{% for m in messages %}{{ m.content }}{% endfor %}"],
    ]


def _spm() -> list[list[Any]]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "h", "e", "he", "▁he", "l"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 6
    return [
        ["tokenizer.ggml.model", ValueType.STRING, "llama"],
        ["tokenizer.ggml.tokens", [ValueType.STRING], tokens],
        ["tokenizer.ggml.token_type", [ValueType.INT32], kinds],
        ["tokenizer.ggml.scores", [ValueType.FLOAT32], [0.0] * 259 + [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0]],
        ["tokenizer.ggml.unknown_token_id", ValueType.UINT32, 0],
        ["tokenizer.ggml.add_space_prefix", ValueType.BOOL, 1],
        ["tokenizer.chat_template", ValueType.STRING, "{{ bos_token }}{{ messages[0].content|trim }}"],
    ]
