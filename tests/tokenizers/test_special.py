from __future__ import annotations

import time
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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


# Within each other, across each other, alike, and with white space of their own.
SPELLINGS = ["<a>", "<a><b>", "x<a", "><", "<a>", " <b>", "<b> ", "xx", "xxx", "\n\n", "\n", "é"]


def special_cuts(text: str, wanted: dict[int, str], swallow: bool) -> list[str | int]:
    """Cut all pieces of text at the longest spelling, all pieces that are left at the next one, and so on."""
    parts: list[str | int] = [text]
    for token_id, spelling in sorted(wanted.items(), key=lambda pair: -len(pair[1].encode())):
        old, parts = parts, []
        for part in old:
            first, *rest = [part] if isinstance(part, int) else part.split(spelling)
            parts.append(first)
            for piece in rest:
                parts += [token_id, piece.lstrip(" \t\n\v\f\r") if swallow else piece]
    return [part for part in parts if part != ""]


@settings(max_examples=500, deadline=None)
@given(
    text=st.lists(st.sampled_from([*SPELLINGS, *"<ab>x \n\té"]), max_size=25).map("".join),
    types=st.lists(st.sampled_from([1, 2, 3, 4]), min_size=len(SPELLINGS), max_size=len(SPELLINGS)),
    name=st.sampled_from(["llama", "Phi-3 mini"]),
    parse_special=st.booleans(),
)
def test_like_the_naive_twin(text, types, name, parse_special):
    read = read_vocabulary({**vocabulary(SPELLINGS, types), "general.name": name}, KINDS)
    wanted = {i: s for i, s in enumerate(SPELLINGS) if types[i] == 4 or (parse_special and types[i] != 1)}
    expected = special_cuts(text, wanted, swallow=name != "llama")
    assert SpecialSplitter(read).split(text, parse_special) == expected


def test_many_special_tokens_take_time_for_each_or_for_each_place():
    spellings = [f"<unused{i}>" for i in range(1000)]
    splitter = SpecialSplitter(read_vocabulary(vocabulary(spellings, [3] * 1000), KINDS))
    begin = time.thread_time()
    assert splitter.split("".join(spellings) * 60, parse_special=True) == [*range(1000)] * 60
    # The product of the two would be ten times that.
    assert time.thread_time() - begin < 2


def test_runs_of_special_tokens_within_each_other_take_linear_time():
    runs = ["\n" * n for n in range(1, 32)]
    splitter = SpecialSplitter(read_vocabulary(vocabulary(runs, [4] * 31), KINDS))
    begin = time.thread_time()
    assert splitter.split("\n" * 1_000_000, parse_special=False) == [30] * 32258 + [1]
    assert time.thread_time() - begin < 2


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
    assert tokenizer.decode(range(6), skip_special=True) == "a</s>stop"


def test_end_of_a_channel_is_no_end():
    tokens = ["<|end|>", "<|return|>", "<|call|>"]
    assert Tokenizer.from_metadata(vocabulary(tokens, [3, 3, 3])).end_ids == {1, 2}
    assert Tokenizer.from_metadata(vocabulary(tokens[:1], [3])).end_ids == {0}
