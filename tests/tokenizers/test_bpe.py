from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import byte_pairs
from tokenizers import pre_tokenizers

from edgellm.errors import FormatError
from edgellm.tokenizers import Tokenizer
from edgellm.tokenizers.bpe import ALPHABET

TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(["the", "shells", " sea", "'s", " ", "\n", "привет", "🦙", "12", "!", "\t", "x"]),
    max_size=12,
).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=TEXTS)
def test_like_the_naive_twin(bpe, text):
    tokens, merges = bpe["tokenizer.ggml.tokens"], bpe["tokenizer.ggml.merges"]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    # The library's own GPT-2 pre-tokenizer, which has its expression built in.
    words = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    expected = [tokens.index(part) for word, _ in words for part in byte_pairs(word, pairs)]
    assert Tokenizer.from_metadata(bpe).encode(text, add_special=False) == expected


def test_the_alphabet_is_gpt2s():
    assert sorted(ALPHABET) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert ALPHABET[ord("A")] == "A"
    assert ALPHABET[ord(" ")] == "Ġ"
    assert ALPHABET[ord("\n")] == "Ċ"


def test_a_whole_word_of_the_vocabulary_needs_no_merges(bpe):
    bpe["tokenizer.ggml.tokens"] = [*bpe["tokenizer.ggml.tokens"], "zqzqzq"]
    bpe["tokenizer.ggml.token_type"] = np.append(bpe["tokenizer.ggml.token_type"], np.int32(1))
    whole = len(bpe["tokenizer.ggml.tokens"]) - 1
    assert whole not in Tokenizer.from_metadata(bpe).encode("zqzqzq")
    bpe["tokenizer.ggml.pre"] = "llama-bpe"
    assert Tokenizer.from_metadata(bpe).encode("zqzqzq", add_special=False) == [whole]


def test_a_byte_outside_the_vocabulary_is_left_out_and_keeps_its_neighbours_apart(bpe):
    tokens = list(bpe["tokenizer.ggml.tokens"])
    merged = next(t for t in tokens[256:] if len(t) == 2 and t.isascii())
    tokens[tokens.index("Q")] = "[absent]"
    tokenizer = Tokenizer.from_metadata({**bpe, "tokenizer.ggml.tokens": tokens})
    ids = tokenizer.encode(merged[0] + "Q" + merged[1], add_special=False)
    assert [tokenizer.token_text(i) for i in ids] == list(merged)


@pytest.mark.parametrize("merge", ["no such", " begins with_a_space", "ends "])
def test_merges_of_absent_tokens_are_left_out(bpe, merge):
    expected = Tokenizer.from_metadata(bpe).encode("the sea shells")
    bpe["tokenizer.ggml.merges"] = [merge, *bpe["tokenizer.ggml.merges"]]
    assert Tokenizer.from_metadata(bpe).encode("the sea shells") == expected


@pytest.mark.parametrize("merge", ["", "abc", " x"])
def test_a_merge_that_is_no_pair_is_named(bpe, merge):
    bpe["tokenizer.ggml.merges"] = ["t h", merge]
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\.merges\[1\]"):
        Tokenizer.from_metadata(bpe).encode("x")
