"""One request's answer: how it ends, its text, log probabilities, progress and timings."""

import pytest
from fake_backend import END, PROMPTS, FakeTokenizer, answer_to, greedy, logits_after, make_engine

from edgellm.sampling import token_logprobs


def test_an_end_token_ends_silently():
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], logit_bias={END: 55}, max_tokens=500)
    assert answer.reason() == "stop"
    assert END not in answer.ids()
    assert "</s>" not in answer.text()
    assert answer.timings.completion_tokens == len(answer.ids())
    assert answer.ids() == greedy(PROMPTS[1], len(answer.ids()))
    assert answer.ids()


def test_ignore_eos_never_chooses_an_end_token():
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], logit_bias={END: 100}, ignore_eos=True, max_tokens=30)
    assert answer.reason() == "length"
    assert len(answer.ids()) == 30


def test_a_stop_token_ends_silently():
    expected = greedy(PROMPTS[1], 8)
    answer = answer_to(make_engine(), PROMPTS[1], stop_token_ids=[expected[5]])
    assert answer.ids() == expected[:5]
    assert answer.reason() == "stop"
    assert answer_to(make_engine(), PROMPTS[1], stop_token_ids=expected).timings.decode_tps == 0


def text_of(ids):
    return b"".join(FakeTokenizer().token_bytes(i) for i in ids).decode("utf-8", "replace")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_stop_string_across_tokens_cuts_before_itself(size):
    full = text_of(greedy(PROMPTS[1], 20))
    stop = full[9 : 9 + size]
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], stop=["\0never", stop], max_tokens=20)
    assert answer.text() == full[: full.index(stop)]
    assert answer.reason() == "stop"


def test_text_is_whole_characters_and_held_back_only_while_it_must_be():
    engine = make_engine(tokenizer=FakeTokenizer())
    full = text_of(greedy(PROMPTS[1], 60))
    answer = answer_to(engine, PROMPTS[1], max_tokens=60)
    assert answer.text() == full
    forced = answer_to(engine, PROMPTS[2], logit_bias={60: 90}, max_tokens=3)
    assert forced.text() == "\ufffd" * 3
    assert [c.text for c in forced.chunks] == ["", "\ufffd", "\ufffd\ufffd"]


def test_text_held_for_a_stop_string_comes_with_the_end():
    full = text_of(greedy(PROMPTS[1], 8))
    engine = make_engine(tokenizer=FakeTokenizer())
    answer = answer_to(engine, PROMPTS[1], stop=full[-2:] + "\0")
    assert answer.text() == full
    assert answer.reason() == "length"


def test_the_context_ends_an_answer():
    engine = make_engine(num_pages=2, context_length=1000)
    assert engine.context_length == 64
    answer = answer_to(engine, PROMPTS[2][:30], max_tokens=None)
    assert (len(answer.ids()), answer.reason()) == (34, "length")
    full = answer_to(engine, (PROMPTS[7])[:64], max_tokens=None)
    assert (len(full.ids()), full.reason()) == (1, "length")


def test_no_tokens_asked_for_gives_none():
    answer = answer_to(make_engine(), PROMPTS[1], max_tokens=0, n=2)
    assert answer.timings.decode_tps == 0
    assert [answer.ids(i) for i in range(2)] == [[], []]
    assert [answer.reason(i) for i in range(2)] == ["length", "length"]


def test_logprobs_are_those_of_the_logits():
    answer = answer_to(make_engine(), PROMPTS[1], logprobs=3, max_tokens=2)
    first = answer.chunks[0].logprobs[0]
    logprob, top = token_logprobs(logits_after(PROMPTS[1]), answer.ids()[0], 3)
    assert (first.token_id, first.logprob, first.top) == (answer.ids()[0], logprob, top)
    assert first.top[0][0] == answer.ids()[0]


def test_progress_grows_to_the_whole_prompt():
    engine = make_engine(max_tokens=8)
    answer = answer_to(engine, PROMPTS[4])
    done = [p.processed for p in answer.progress]
    assert done == sorted(set(done))
    assert done[-1] == len(PROMPTS[4])
    assert {p.total for p in answer.progress} == {len(PROMPTS[4])}


def test_timings_count_tokens_and_seconds():
    answer = answer_to(make_engine(), PROMPTS[4])
    t = answer.timings
    assert (t.prompt_tokens, t.cached_tokens, t.completion_tokens) == (len(PROMPTS[4]), 0, 8)
    assert min(t.queued_s, t.prefill_s, t.decode_s) >= 0


def test_stats_add_up():
    engine = make_engine()
    for prompt in PROMPTS[:3]:
        answer_to(engine, prompt)
    s = engine.stats()
    assert (s.requests, s.failed, s.running, s.waiting, s.pages_used) == (3, 0, 0, 0, 0)
    assert (s.prompt_tokens, s.generated_tokens) == (sum(map(len, PROMPTS[:3])), 24)
    assert s.pages_total == 64
