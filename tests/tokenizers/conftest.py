"""Small vocabularies, as metadata of a GGUF file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as Trainable
from tokenizers import models, pre_tokenizers, trainers

TEXT = [
    "The quick brown fox jumps over the lazy dog. The dog doesn't mind; it's the fox's 1st jump!",
    "She sells sea shells on the sea shore, 1234 of them, and the shells she sells are sea shells.",
    "Größe, naïve café — привет мир, привет всем; 你好世界 🦙🦙\n\n    indented\tcode = f(x) + 10",
]
SPECIAL = ["<|begin|>", "<|im_end|>", "<|user|>", "[tool]"]
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


@pytest.fixture
def bpe() -> dict[str, Any]:
    """A byte-level BPE vocabulary: 256 bytes, what merges make, three control tokens and a user's."""
    engine = Trainable(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    engine.train_from_iterator(TEXT, trainer)
    vocab = engine.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__) + SPECIAL
    made = [token for token in tokens[256:] if token not in SPECIAL]
    types = [NORMAL] * len(vocab) + [CONTROL, CONTROL, CONTROL, USER_DEFINED]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.merges": [f"{left} {right}" for left, right in _merges(made, vocab)],
        "tokenizer.ggml.bos_token_id": tokens.index("<|begin|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }


def _merges(made: list[str], vocab: dict[str, int]) -> list[tuple[str, str]]:
    """For each token of several characters, every cut into two tokens, in the order of the ids."""
    return [
        (token[:cut], token[cut:])
        for token in made
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]


@pytest.fixture
def spm() -> dict[str, Any]:
    """A SentencePiece vocabulary: <unk>, <s>, </s>, 256 bytes, some pieces, a control and a user's token."""
    letters = [*"▁abcdefghilnortsu.,!é"]
    words = ["▁a", "▁t", "he", "▁the", "ab", "abc", "bc", "in", "▁in", "er", "▁he", "on", "est", "st", "▁▁"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *words, *letters]
    tokens += ["<|end|>", "[tool]"]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * (len(words) + len(letters))
    types += [CONTROL, USER_DEFINED]
    scores = np.zeros(len(tokens), np.float32)
    scores[259 : 259 + len(words) + len(letters)] = -np.arange(len(words) + len(letters))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
