from __future__ import annotations

import time

import pytest
from tokenizers import Regex, pre_tokenizers

from edgellm.errors import UnsupportedError
from edgellm.tokenizers.pre import BY_NAME, find_pre

DISTINCT = sorted({find_pre(name).patterns: name for name in sorted(BY_NAME)}.values())


def words(name: str, text: str) -> list[str]:
    splits = [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in find_pre(name).patterns]
    return [word for word, _ in pre_tokenizers.Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_nothing_is_lost(name):
    text = "I'LL pay 12345€ for it's_x = [1]\n\n\t  naïve  नमस्ते 你好 ｱ！…\r\n\u3000end  "
    assert "".join(words(name, text)) == text


@pytest.mark.parametrize("name", DISTINCT)
def test_time_is_linear(name):
    runs = [
        " ",
        "\n",
        " \n",
        "a",
        "A",
        "1",
        "!",
        "好",
        "\u0301",
        "'s",
        "  a",
        "a b ",
        "\t",
        "\u00a0",
        "ก",
        "A\u0301",
    ]
    begin = time.perf_counter()
    for run in runs:
        for end in ("", "a"):
            words(name, run * (20_000 // len(run)) + end)
    # Quadratic time would be minutes.
    assert time.perf_counter() - begin < 10


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "Hello  world's 123", ["Hello", " ", " world", "'s", " 123"]),
        ("gpt-2", "I'LL", ["I", "'", "LL"]),
        ("llama-bpe", "I'LL 12345\n\n x", ["I", "'LL", " ", "123", "45", "\n\n", " x"]),
        ("qwen2", "a 12", ["a", " ", "1", "2"]),
        ("smollm", "a12 b", ["a", "1", "2", " b"]),
        ("qwen2", "'ſ", ["'ſ"]),
        ("gpt-4o", "HelloWorld's", ["Hello", "World's"]),
        ("deepseek-v3", "1234 你好a", ["123", "4", " ", "你好", "a"]),
        ("falcon", "a==1234", ["a", "==", "123", "4"]),
        ("kimi-k2", "你好abc", ["你好", "abc"]),
        ("bloom", "Hi, you", ["Hi", ",", " you"]),
    ],
)
def test_words(name, text, expected):
    assert words(name, text) == expected


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UnsupportedError, match=r"'klingon'.*llama-bpe.*qwen2"):
        find_pre("klingon")
