"""Prompts and answers of the whole library over a tiny random model, on the reference backend."""

import numpy as np
import pytest
from spelled_model import GREEDY

import edgellm
from edgellm import SamplingParams


def test_text_goes_to_tokens_and_back(llm):
    ids = llm.tokenize("the cat")
    assert ids[0] == 0
    assert llm.detokenize(ids[1:]) == "the cat"
    assert llm.tokenize("<s>", add_special=False) != llm.tokenize(
        "<s>", add_special=False, parse_special=True
    )
    assert llm.tokenizer.vocab_size == 262


def test_logits_have_a_row_for_every_token_and_only_look_back(llm):
    ids = llm.tokenize("the cat sat on the mat " * 8)
    rows = llm.logits(ids)
    assert rows.shape == (len(ids), 262)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(llm.logits(ids[:70]), rows[:70], rtol=0, atol=5e-3)


def test_generate_follows_the_logits(llm):
    answer = llm.generate("the cat", GREEDY)
    ids = llm.tokenize("the cat")
    assert answer.prompt_token_ids == ids
    for token in answer.token_ids:
        row = llm.logits(ids)[-1].copy()
        row[list(llm.tokenizer.end_ids)] = -np.inf
        assert row[token] == pytest.approx(row.max(), abs=1e-3)
        ids = [*ids, token]
    assert answer.text == llm.detokenize(answer.token_ids, skip_special=True)
    assert answer.finish_reason == "length"


def test_a_prompt_may_be_token_ids(llm):
    ids = llm.tokenize("the cat")
    for prompt in (ids, tuple(ids), np.array(ids)):
        assert llm.generate(prompt, GREEDY).token_ids == llm.generate("the cat", GREEDY).token_ids


def test_a_long_prompt_comes_in_chunks_and_counts_as_one(llm):
    ids = llm.tokenize("the cat sat on the mat " * 9)
    answer = llm.generate(ids, SamplingParams(temperature=0, max_tokens=1))
    assert answer.timings.prompt_tokens == len(ids) > 100
    assert answer.timings.cached_tokens <= len(ids) - 1
    again = llm.generate(ids, SamplingParams(temperature=0, max_tokens=1))
    assert again.timings.cached_tokens == len(ids) - 1
    assert again.token_ids == answer.token_ids


def test_a_list_in_gives_a_list_out_in_order(llm):
    prompts = ["the cat", "a", llm.tokenize("mat"), "the dog " * 9] * 3
    answers = llm.generate(prompts, GREEDY)
    assert [a.token_ids for a in answers] == [llm.generate(p, GREEDY).token_ids for p in prompts]
    assert llm.generate(["the cat"], GREEDY)[0].text == llm.generate("the cat", GREEDY).text
    assert llm.generate([], GREEDY) == []


def test_more_prompts_than_the_queue_holds_are_all_answered(llm):
    answers = llm.generate([[1, i] for i in range(4, 104)], SamplingParams(temperature=0, max_tokens=1))
    assert [a.prompt_token_ids[1] for a in answers] == list(range(4, 104))


def test_one_bad_prompt_raises_before_anything_runs(llm):
    before = llm.stats().requests
    with pytest.raises(edgellm.ContextLengthError, match="has 300 tokens, but the context holds 256"):
        llm.generate(["fine", [5] * 300], GREEDY)
    with pytest.raises(edgellm.UsageError, match="prompt is empty"):
        llm.generate(["fine", []], GREEDY)
    with pytest.raises(edgellm.UsageError, match="is no token id"):
        llm.generate([["a", "b"]], GREEDY)
    with pytest.raises(edgellm.UsageError, match="is a str or a list of token ids, not int"):
        llm.generate(5)
    with pytest.raises(edgellm.UsageError, match="params is a SamplingParams, not dict"):
        llm.generate("a", {"temperature": 0})
    assert llm.stats().requests == before


def test_choices_and_logprobs(llm):
    params = SamplingParams(
        temperature=5, top_k=0, min_p=0, seed=4, n=3, max_tokens=6, logprobs=2, ignore_eos=True
    )
    answer = llm.generate("the", params)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert answer.token_ids == answer.choices[0].token_ids
    assert len({tuple(c.token_ids) for c in answer.choices}) == 3
    for choice in answer.choices:
        assert [x.token_id for x in choice.logprobs] == choice.token_ids
        assert all(len(x.top) == 2 and x.logprob <= x.top[0][1] + 1e-6 for x in choice.logprobs)
    assert llm.generate("the", GREEDY).logprobs is None


def test_a_stream_is_the_answer_in_pieces(llm):
    stream = llm.stream("the cat", GREEDY)
    chunks = list(stream)
    assert "".join(c.text for c in chunks) == llm.generate("the cat", GREEDY).text
    assert chunks[-1].finish_reason == "length"
    assert stream.timings.completion_tokens == 12


def test_stream_refuses_at_once(llm):
    with pytest.raises(edgellm.UsageError):
        llm.stream([])
    with pytest.raises(edgellm.UsageError, match="one prompt"):
        llm.stream(["a", "b"])


def test_a_language_model_does_not_embed(llm):
    with pytest.raises(edgellm.UsageError, match="makes no embeddings"):
        llm.embed(["a"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda llm: llm.generate(b"the cat"), "not bytes"),
        (lambda llm: llm.generate([b"the cat"]), "not bytes"),
        (lambda llm: llm.logits(None), "not NoneType"),
        (lambda llm: llm.logits("the cat"), "not str"),
        (lambda llm: llm.embed(5), "not int"),
        (lambda llm: llm.embed(None), "not NoneType"),
        (lambda llm: llm.detokenize(5), "not int"),
        (lambda llm: llm.detokenize("the cat"), "not str"),
    ],
)
def test_values_of_the_wrong_type_are_wrong_usage(llm, call, words):
    with pytest.raises(edgellm.UsageError, match=words):
        call(llm)
