"""Real vocabularies, against token ids that others made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm.errors import UnsupportedError
from edgellm.tokenizers import IncrementalDecoder, Tokenizer

NAMES = ["gpt-2", "llama-bpe", "qwen2", "deepseek-llm", "llama-spm", "phi-3"]
SEPARATOR = "\n__ggml_vocab_test__\n"


@pytest.fixture(scope="module", params=NAMES)
def case(request, shared: Callable[[str], Path]) -> tuple[Tokenizer, list[str], list[list[int]]]:
    path = shared("vocabs") / f"ggml-vocab-{request.param}.gguf"
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split(SEPARATOR)
    lines = path.with_suffix(".gguf.out").read_text().split("\n")
    return Tokenizer(path), texts, [[int(i) for i in line.split()] for line in lines]


def test_ids_are_exact(case):
    tokenizer, texts, expected = case
    assert len(texts) == len(expected) > 40
    for text, ids in zip(texts, expected, strict=True):
        assert tokenizer.encode(text, add_special=False) == ids, text


def test_decoding_gives_the_text_back(case):
    tokenizer, texts, _ = case
    for text in [*texts, "\0a\0", "e\u0301 \u200d\ufeff", "\r\n\r\n", " " * 1000, "\U0010ffff\ue000"]:
        ids = tokenizer.encode(text, add_special=False)
        assert tokenizer.decode(ids) == text
        decoder = IncrementalDecoder(tokenizer)
        assert "".join(map(decoder.push, ids)) + decoder.flush() == text


def test_control_tokens_in_a_text_count_only_when_asked(case):
    tokenizer, _, _ = case
    text = f"x{tokenizer.eos_text}y"
    assert tokenizer.eos_id not in tokenizer.encode(text, add_special=False)
    assert tokenizer.eos_id in tokenizer.encode(text, add_special=False, parse_special=True)


def test_every_token_has_bytes(case):
    tokenizer, _, _ = case
    for token_id in range(0, tokenizer.vocab_size, 97):
        assert isinstance(tokenizer.token_bytes(token_id), bytes)


def test_other_kinds_are_refused_by_name(shared):
    with pytest.raises(UnsupportedError, match=r"'bert'.*gpt2, llama"):
        Tokenizer(shared("vocabs") / "ggml-vocab-bert-bge.gguf")
