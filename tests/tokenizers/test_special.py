from __future__ import annotations

from typing import Any

import numpy as np

from edgellm.tokenizers import Tokenizer
from edgellm.tokenizers.special import SpecialSplitter
from edgellm.tokenizers.tokenizer import KINDS
from edgellm.tokenizers.vocabulary import read_vocabulary


def vocabulary(tokens: list[str], types: list[int], **keys: Any) -> dict[str, Any]:
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        **{f"tokenizer.ggml.{name}": value for name, value in keys.items()},
    }


def test_user_defined_tokens_are_always_found_and_control_tokens_when_asked(bpe):
    splitter = SpecialSplitter(read_vocabulary(bpe, KINDS))
    user, tool = bpe["tokenizer.ggml.tokens"].index("<|user|>"), bpe["tokenizer.ggml.tokens"].index("[tool]")
    assert splitter.split("a<|user|>[tool]b", parse_special=False) == ["a<|user|>", tool, "b"]
    assert splitter.split("a<|user|>[tool]b", parse_special=True) == ["a", user, tool, "b"]
    assert splitter.split("<|user|><|user|>", parse_special=True) == [user, user]
    assert splitter.split("", parse_special=True) == []


def test_the_longest_spelling_wins():
    read = read_vocabulary(vocabulary(["<a>", "<a><b>", "x<a"], [4, 4, 4]), KINDS)
    assert SpecialSplitter(read).split("x<a><b>", parse_special=False) == ["x", 1]
    assert SpecialSplitter(read).split("x<a>", parse_special=False) == ["x", 0]


def test_special_tokens_are_added_as_the_file_asks(bpe):
    bos, eos = bpe["tokenizer.ggml.bos_token_id"], bpe["tokenizer.ggml.eos_token_id"]
    plain = Tokenizer.from_metadata(bpe).encode("the")
    assert plain == Tokenizer.from_metadata(bpe).encode("the", add_special=False)
    both = {**bpe, "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True}
    assert Tokenizer.from_metadata(both).encode("the") == [bos, *plain, eos]
    assert Tokenizer.from_metadata(both).encode("the", add_special=False) == plain
    assert Tokenizer.from_metadata({**bpe, "tokenizer.ggml.pre": "llama-bpe"}).encode("")[0] == bos


def test_ends_are_stated_or_spelled():
    tokens = ["a", "<|eot_id|>", "<|end_of_text|>", "</s>", "<|eom_id|>", "stop"]
    tokenizer = Tokenizer.from_metadata(vocabulary(tokens, [1, 3, 3, 1, 1, 1], eos_token_id=5))
    assert tokenizer.end_ids == {1, 2, 4, 5}
    assert tokenizer.eot_id == 1
    assert tokenizer.is_control(4)
    assert not tokenizer.is_control(3)


def test_end_of_a_channel_is_no_end():
    tokens = ["<|end|>", "<|return|>", "<|call|>"]
    assert Tokenizer.from_metadata(vocabulary(tokens, [3, 3, 3])).end_ids == {1, 2}
    assert Tokenizer.from_metadata(vocabulary(tokens[:1], [3])).end_ids == {0}
