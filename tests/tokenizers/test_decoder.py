from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import UsageError
from edgellm.tokenizers import IncrementalDecoder, Tokenizer
from edgellm.tokenizers.tokenizer import KINDS

FIXTURES = {"gpt2": "bpe", "llama": "spm"}


@pytest.fixture(params=sorted(KINDS))
def tokenizer(request) -> Tokenizer:
    return Tokenizer.from_metadata(request.getfixturevalue(FIXTURES[request.param]))


def pushed(tokenizer: Tokenizer, ids: list[int], skip_special: bool) -> list[str]:
    decoder = IncrementalDecoder(tokenizer, skip_special)
    return [*map(decoder.push, ids), decoder.flush()]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), skip_special=st.booleans())
def test_pieces_make_the_whole(tokenizer, data, skip_special):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30))
    assert "".join(pushed(tokenizer, ids, skip_special)) == tokenizer.decode(ids, skip_special)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=30))
def test_never_half_a_character(tokenizer, text):
    """Of any text but "▁", which SentencePiece has for a space: they come back alike."""
    ids = tokenizer.encode(text, add_special=False)
    sofar = ""
    for piece in pushed(tokenizer, ids, True):
        sofar += piece
        assert text.startswith(sofar)
    assert sofar == text


def test_a_character_in_four_tokens(tokenizer):
    ids = tokenizer.encode("x𒍅", add_special=False)[-4:]
    assert pushed(tokenizer, ids, True) == ["", "", "", "𒍅", ""]
    assert pushed(tokenizer, ids[:3], True) == ["", "", "", "\ufffd"]
    start, end = ids[0], tokenizer.encode("x", add_special=False)[-1]
    assert pushed(tokenizer, [start, end], True) == ["", "\ufffdx", ""]


def test_control_tokens_are_skipped_or_spelled(tokenizer):
    ids = [*tokenizer.encode("a", add_special=False), tokenizer.eos_id]
    assert tokenizer.decode(ids) == "a" + tokenizer.eos_text
    assert tokenizer.decode(ids, skip_special=True) == "a"
    assert tokenizer.token_bytes(tokenizer.eos_id, skip_special=True) == b""


@pytest.mark.parametrize("token_id", [-1, 10**9, "1", True, 1.0, None])
def test_an_unknown_id_is_refused(tokenizer, token_id):
    with pytest.raises(UsageError, match="token id") as caught:
        IncrementalDecoder(tokenizer).push(token_id)
    assert caught.value.param == "ids"


def test_every_kind_has_a_fixture():
    assert FIXTURES.keys() == KINDS.keys()
