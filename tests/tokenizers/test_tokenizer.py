"""The Tokenizer class, and metadata that cannot be trusted."""

from __future__ import annotations

import numpy as np
import pytest

from edgellm.errors import FormatError, ModelNotFoundError, UnsupportedError, UsageError
from edgellm.tokenizers import Tokenizer
from edgellm.tokenizers.tokenizer import KINDS

PREFIX = "tokenizer.ggml."
SIZE = 300


def test_properties(bpe):
    bpe["tokenizer.chat_template"] = "{{ messages }}"
    tokenizer = Tokenizer.from_metadata(bpe)
    assert tokenizer.vocab_size == len(bpe[PREFIX + "tokens"])
    assert (tokenizer.bos_text, tokenizer.eos_text) == ("<|begin|>", "<|im_end|>")
    assert tokenizer.chat_template == "{{ messages }}"
    assert tokenizer.token_bytes(tokenizer.encode(" ", add_special=False)[0]) == b" "
    assert tokenizer.encode("") == []


def test_half_of_a_surrogate_pair_is_refused(bpe):
    with pytest.raises(UsageError, match=r"U\+D83D.*character 1") as caught:
        Tokenizer.from_metadata(bpe).encode("a\ud83d")
    assert caught.value.param == "text"
    with pytest.raises(UsageError, match="bytes"):
        Tokenizer.from_metadata(bpe).encode(b"a")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelNotFoundError):
        Tokenizer(tmp_path / "none.gguf")


@pytest.mark.parametrize("kind", ["test", "bert", "t5", ""])
def test_an_unknown_kind_is_named_before_anything_else_is_read(kind):
    with pytest.raises(UnsupportedError, match=f"'{kind}'"):
        Tokenizer.from_metadata({PREFIX + "model": kind})


def test_an_unknown_pre_tokenizer_is_named_at_once(bpe):
    with pytest.raises(UnsupportedError, match="'elvish'"):
        Tokenizer.from_metadata({**bpe, PREFIX + "pre": "elvish"})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model", None),
        ("model", 3),
        ("pre", 3),
        ("tokens", None),
        ("tokens", []),
        ("tokens", "abc"),
        ("tokens", 7),
        ("tokens", np.arange(3)),
        ("tokens", ["a", 1]),
        ("token_type", np.ones(3, np.int32)),
        ("token_type", np.ones(SIZE, np.float32)),
        ("token_type", "x"),
        ("token_type", ["1"]),
        ("token_type", [np.ones(2, np.int32), np.ones(3, np.int32)]),
        ("token_type", np.array([-5] + [1] * (SIZE - 1), np.int32)),
        ("token_type", np.array([2**40] + [1] * (SIZE - 1), np.uint64)),
        ("scores", np.ones(3, np.float32)),
        ("scores", np.full(SIZE, np.nan, np.float32)),
        ("merges", 5),
        ("merges", np.arange(3)),
        ("bos_token_id", 10**6),
        ("bos_token_id", -1),
        ("eos_token_id", 2**32 - 1),
        ("eos_token_id", "2"),
        ("eot_token_id", True),
        ("eom_token_id", SIZE),
        ("unknown_token_id", SIZE),
        ("add_bos_token", 1),
        ("add_eos_token", "yes"),
    ],
)
def test_bad_metadata_names_its_key(bpe, key, value):
    # Cut to a size that the values above can have.
    bpe[PREFIX + "tokens"], bpe[PREFIX + "token_type"] = (
        bpe[PREFIX + "tokens"][:SIZE],
        np.ones(SIZE, np.int32),
    )
    bpe[PREFIX + "bos_token_id"], bpe[PREFIX + "eos_token_id"], bpe[PREFIX + "merges"] = 0, 1, []
    Tokenizer.from_metadata(bpe)
    bpe[PREFIX + key] = value
    with pytest.raises(FormatError, match=PREFIX + key):
        Tokenizer.from_metadata(bpe)


def test_a_wrong_type_names_its_place(bpe):
    bpe[PREFIX + "token_type"][7] = 77
    with pytest.raises(FormatError, match=r"token_type\[7\] is 77; types are 0 to 6"):
        Tokenizer.from_metadata(bpe)


@pytest.mark.parametrize("name", ["padding", "seperator", "separator", "mask", "cls", "image", "fim_pre"])
@pytest.mark.parametrize("value", [2**32 - 1, 128_256, -1])
def test_ids_that_nobody_reads_may_be_anything(bpe, name, value):
    expected = Tokenizer.from_metadata(bpe).encode("the sea")
    assert Tokenizer.from_metadata({**bpe, f"{PREFIX}{name}_token_id": value}).encode("the sea") == expected


def test_adding_a_token_that_is_not_there(bpe):
    del bpe[PREFIX + "bos_token_id"]
    with pytest.raises(FormatError, match=r"add_bos_token is true, but tokenizer.ggml.bos_token_id"):
        Tokenizer.from_metadata({**bpe, PREFIX + "add_bos_token": True})


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_megabyte_takes_seconds(request, name):
    tokenizer = Tokenizer.from_metadata(request.getfixturevalue({"gpt2": "bpe", "llama": "spm"}[name]))
    for text in ("the sea shells. " * 60_000, "a" * 10**6, " " * 10**6, "é\n" * 300_000):
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


def test_adding_a_token_that_the_kind_asks_for(bpe):
    del bpe[PREFIX + "bos_token_id"]
    with pytest.raises(FormatError, match=r"'llama-bpe' adds the bos token unless .*bos_token_id is missing"):
        Tokenizer.from_metadata({**bpe, PREFIX + "pre": "llama-bpe"})
    assert not Tokenizer.from_metadata(
        {**bpe, PREFIX + "pre": "llama-bpe", PREFIX + "add_bos_token": False}
    ).add_bos
    one = {PREFIX + "model": "llama", PREFIX + "tokens": ["a"], PREFIX + "scores": np.zeros(1, np.float32)}
    with pytest.raises(FormatError, match="SentencePiece adds the bos token unless"):
        Tokenizer.from_metadata(one)
