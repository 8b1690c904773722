from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive import scored_pieces

from edgellm.errors import FormatError
from edgellm.tokenizers import Tokenizer

TEXTS = st.text(alphabet="abcdehinorst .,é", max_size=30)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=TEXTS)
def test_like_the_naive_twin(spm, text):
    tokens, scores = spm["tokenizer.ggml.tokens"], spm["tokenizer.ggml.scores"]
    normal = {t: float(scores[i]) for i, t in enumerate(tokens) if spm["tokenizer.ggml.token_type"][i] == 1}
    pieces = scored_pieces("▁" + text.replace(" ", "▁"), normal) if text else []
    expected = [tokens.index(piece) for piece in pieces]
    assert Tokenizer.from_metadata(spm).encode(text, add_special=False) == expected


def test_what_is_no_piece_becomes_bytes(spm):
    tokenizer = Tokenizer.from_metadata(spm)
    ids = tokenizer.encode("zß", add_special=False)
    assert [tokenizer.token_text(i) for i in ids] == ["▁", "<0x7A>", "<0xC3>", "<0x9F>"]
    assert tokenizer.decode(ids) == "zß"


def test_the_space_in_front_comes_and_goes(spm):
    tokenizer = Tokenizer.from_metadata(spm)
    assert tokenizer.encode("the", add_special=False) == [tokenizer.encode(" the", add_special=False)[-1]]
    ids = tokenizer.encode("the</s>the", parse_special=True)
    assert [tokenizer.token_text(i) for i in ids] == ["<s>", "▁the", "</s>", "▁the"]
    assert tokenizer.decode(ids) == "<s>the</s>the"
    assert tokenizer.decode(ids, skip_special=True) == "thethe"
    assert tokenizer.decode([ids[1]], after=ids[1]) == " the"
    assert tokenizer.decode([ids[1]], after=ids[0]) == "the"
    spm["tokenizer.ggml.add_space_prefix"] = False
    plain = Tokenizer.from_metadata(spm)
    assert plain.decode(plain.encode(" the", add_special=False)) == " the"
    assert plain.token_text(plain.encode("the", add_special=False)[0]) == "t"


def test_defaults_are_sentencepieces(spm):
    tokenizer = Tokenizer.from_metadata({k: v for k, v in spm.items() if not k.endswith("_token_id")})
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.encode("") == [1]


def test_broken_vocabularies_are_told(spm):
    tokens = list(spm["tokenizer.ggml.tokens"])
    with pytest.raises(FormatError, match="scores"):
        Tokenizer.from_metadata({k: v for k, v in spm.items() if not k.endswith("scores")})
    with pytest.raises(FormatError, match="tokens make no SentencePiece model"):
        Tokenizer.from_metadata({**spm, "tokenizer.ggml.tokens": [*tokens[:-1], tokens[-3]]})
    types = spm["tokenizer.ggml.token_type"].copy()
    with pytest.raises(FormatError, match=r"tokens\[3\] is ''"):
        Tokenizer.from_metadata({**spm, "tokenizer.ggml.tokens": [*tokens[:3], "", *tokens[4:]]})
    types[3] = 1
    with pytest.raises(FormatError, match="255 of the 256 bytes"):
        Tokenizer.from_metadata({**spm, "tokenizer.ggml.token_type": types})
    with pytest.raises(FormatError, match=r"tokens\[3\] is 'x'"):
        Tokenizer.from_metadata({**spm, "tokenizer.ggml.tokens": [*tokens[:3], "x", *tokens[4:]]})


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5])
def test_tokens_without_text_are_nothing(spm, kind):
    size = len(spm["tokenizer.ggml.tokens"])
    text = f"the abc\ufdd0empty{size} é"
    expected = Tokenizer.from_metadata(spm).encode(text)
    for key, more in (("tokens", ["", ""]), ("token_type", [kind] * 2), ("scores", [0] * 2)):
        old = spm["tokenizer.ggml." + key]
        spm["tokenizer.ggml." + key] = (
            old + more if key == "tokens" else np.append(old, np.array(more, old.dtype))
        )
    tokenizer = Tokenizer.from_metadata(spm)
    assert tokenizer.encode(text) == expected
    assert tokenizer.decode([size, size + 1]) == ""


def test_phi3_swallows_white_space_after_special_tokens(spm):
    def ids(name: str) -> list[int]:
        return Tokenizer.from_metadata({**spm, "general.name": name}).encode(
            "a<|end|>\n a", parse_special=True
        )

    assert ids("Phi-3 mini") == ids("llama")[:3] + ids("llama")[-1:]


def test_scores_may_be_integers(spm):
    spm["tokenizer.ggml.scores"] = spm["tokenizer.ggml.scores"].astype(np.int32)
    assert Tokenizer.from_metadata(spm).encode("the", add_special=False)
