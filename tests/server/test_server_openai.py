"""Chat and text completions, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from asgi_client import Client, events
from fake_engine import FakeEngine, FakeTokenizer, Reply

from edgellm.engine.request import TokenLogprob
from edgellm.errors import EdgeLLMError
from edgellm.server.config import ServerConfig
from edgellm.server.shapes import Offsets, TextShape


def test_a_chat_completion():
    client = Client(Reply(("Grü", "ße"), "length"))
    body = client.chat(
        messages=[{"role": "developer", "content": "S"}, {"role": "user", "content": "U"}]
    ).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == "fake:1"
    [choice] = body["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Grüße", "refusal": None}
    assert choice["finish_reason"] == "length"
    assert client.engine.requests[0].prompt_token_ids == [ord(c) for c in "<system>S<user>U"]
    assert body["usage"] == {
        "prompt_tokens": 16,
        "completion_tokens": 5,
        "total_tokens": 21,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    assert body["timings"]["ttft_s"] == pytest.approx(0.011)


def test_a_chat_stream_opens_with_the_role_and_says_the_same():
    client = Client(Reply(("Grü", "", "ße")))
    *chunks, done = events(client.chat(stream=True))
    assert done == "[DONE]"
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    deltas = [c["choices"][0]["delta"] for c in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Grü"}, {"content": "ße"}]
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None, "stop"]
    assert "timings" in chunks[-1]
    assert all("usage" not in c for c in chunks)


def test_usage_comes_in_a_chunk_of_its_own_where_asked_for():
    *chunks, usage, done = events(Client().chat(stream=True, stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len("Hello there")
    assert all(c["usage"] is None for c in chunks)


def test_several_choices():
    client = Client(Reply(("a", "b")), Reply(("a", "b")))
    body = client.chat(n=3).json()
    assert [(c["index"], c["message"]["content"]) for c in body["choices"]] == [
        (0, "ab"),
        (1, "ab"),
        (2, "ab"),
    ]
    *chunks, _ = events(client.chat(n=3, stream=True))
    finished = [c["choices"][0] for c in chunks if c["choices"][0]["finish_reason"]]
    assert sorted(c["index"] for c in finished) == [0, 1, 2]
    assert sum("timings" in c for c in chunks) == 1


def test_log_probabilities_of_a_chat():
    client = Client(Reply(("ü",)), Reply(("ü",)), Reply(("ü",)))
    [entry] = client.chat(logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("ü", -0.5, [0xC3, 0xBC])
    assert entry["top_logprobs"] == [
        {"token": "A", "logprob": -0.25, "bytes": [65]},
        {"token": "B", "logprob": -9999.0, "bytes": [66]},
    ]
    assert client.chat(logprobs=True).json()["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    chunks = events(client.chat(logprobs=True, top_logprobs=2, stream=True))
    assert chunks[1]["choices"][0]["logprobs"]["content"] == [entry]
    assert client.chat().json()["choices"][0]["logprobs"] is None


def test_top_logprobs_needs_logprobs():
    assert Client().chat(top_logprobs=2).json()["error"]["param"] == "top_logprobs"


def test_two_names_of_one_limit_must_agree():
    assert Client().chat(max_tokens=5, max_completion_tokens=5).status_code == 200
    assert Client().chat(max_tokens=5, max_completion_tokens=6).json()["error"]["param"] == "max_tokens"


def test_another_model_is_a_404():
    answer = Client().chat(model="gpt-x")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_is_a_400_with_both_numbers(stream):
    client = Client(engine=FakeEngine(context_length=5))
    answer = client.chat(stream=stream)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == "messages"
    assert "8" in error["message"]
    assert "5" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_queue_is_a_429_that_says_when_to_come_again(stream):
    answer = Client(engine=FakeEngine(limit=0)).chat(stream=stream)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "queue_full"


def test_a_failure_is_a_500_with_its_reason():
    answer = Client(Reply(("x",), error=EdgeLLMError("the model failed to run: out of order"))).chat()
    assert answer.status_code == 500
    assert "out of order" in answer.json()["error"]["message"]


def test_a_failure_in_a_stream_travels_in_it():
    *chunks, last = events(Client(Reply(("x",), error=EdgeLLMError("broken"))).chat(stream=True))
    assert chunks[-1]["choices"][0]["delta"] == {"content": "x"}
    assert last["error"]["message"] == "broken"


def test_silence_in_a_stream_is_filled_with_comments():
    client = Client(Reply(("x",), gap_s=0.1), config=ServerConfig(ping_seconds=0.02))
    found = events(client.chat(stream=True))
    assert found.count(": ping") >= 2
    assert found[-1] == "[DONE]"


def test_texts_that_no_tokenizer_takes_are_a_400():
    answer = Client().chat(messages=[{"role": "user", "content": "\ud800"}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages"


def test_a_text_completion_of_several_prompts():
    client = Client(Reply(("a",)), Reply(("b",)))
    body = client.post("/v1/completions", {"prompt": ["x", [7, 8]], "n": 2}).json()
    assert body["object"] == "text_completion"
    assert [(c["index"], c["text"]) for c in body["choices"]] == [(0, "a"), (1, "a"), (2, "b"), (3, "b")]
    assert [r.prompt_token_ids for r in client.engine.requests] == [[2, ord("x")], [7, 8]]
    assert client.engine.requests[0].params.max_tokens == 16
    assert body["usage"]["prompt_tokens"] == 4
    assert body["usage"]["completion_tokens"] == 4


def test_a_text_stream():
    *chunks, done = events(Client().post("/v1/completions", {"prompt": "x", "stream": True}))
    assert done == "[DONE]"
    assert [c["choices"][0]["text"] for c in chunks] == ["Hello", " there"]


def test_log_probabilities_of_a_text():
    body = {"prompt": "x", "logprobs": 1}
    found = Client(Reply(("ab", "c"))).post("/v1/completions", body).json()["choices"][0]["logprobs"]
    assert found["tokens"] == ["a", "b", "c"]
    assert found["text_offset"] == [0, 1, 2]
    assert found["token_logprobs"] == [-0.5] * 3
    assert found["top_logprobs"] == [{"A": -0.25}] * 3
    chunks = events(Client(Reply(("ab", "c"))).post("/v1/completions", {**body, "stream": True}))
    assert chunks[1]["choices"][0]["logprobs"]["text_offset"] == [2]


class Spelled(FakeTokenizer):
    """Token i is pieces[i]; the last one is special."""

    def __init__(self, *pieces: bytes, add_space_prefix: bool = False) -> None:
        self.pieces, self.add_space_prefix = pieces, add_space_prefix

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes:
        return b"" if skip_special and self.is_special(token_id) else self.pieces[token_id]

    def is_special(self, token_id: int) -> bool:
        return token_id == len(self.pieces) - 1


def logprobs_of(tokenizer: Spelled, ids: list[int], after: int) -> dict[str, Any]:
    """Of an answer `ids`, that whole and streamed have alike."""
    found = [TokenLogprob(i, -1.0, ((0, -2.0), (1, -3.0))) for i in ids]
    whole = TextShape().logprobs(tokenizer, found, Offsets(tokenizer, after))
    offsets = Offsets(tokenizer, after)
    streamed = [TextShape().logprobs(tokenizer, [f], offsets)["text_offset"][0] for f in found]
    assert streamed == whole["text_offset"]
    return whole


def test_tokens_that_are_parts_of_characters_keep_their_names_and_places():
    tokenizer = Spelled("ß".encode()[:1], "ß".encode()[1:], b"a", b"\xff", b"b", b"<end>")
    found = logprobs_of(tokenizer, [0, 1, 2, 3, 4], after=2)
    assert found["text_offset"] == [0, 0, 1, 2, 3]
    assert found["tokens"] == ["bytes:\\xc3", "bytes:\\x9f", "a", "bytes:\\xff", "b"]
    assert found["top_logprobs"] == [{"bytes:\\xc3": -2.0, "bytes:\\x9f": -3.0}] * 5


def test_tokens_that_the_text_leaves_out_take_no_place():
    found = logprobs_of(Spelled(b"a", b"b", b"<end>"), [0, 2, 0], after=1)
    assert found["tokens"] == ["a", "<end>", "a"]
    assert found["text_offset"] == [0, 1, 1]


@pytest.mark.parametrize(("after", "offsets"), [(1, [0, 3, 6, 6]), (2, [0, 2, 5, 5])])
def test_a_space_that_the_text_leaves_out_takes_no_place(after, offsets):
    """SentencePiece's, of a text's first word and of one after a special token."""
    tokenizer = Spelled(b" ab", b"c", b"<end>", add_space_prefix=True)
    assert logprobs_of(tokenizer, [0, 0, 2, 0], after)["text_offset"] == offsets


@pytest.mark.parametrize("stream", [False, True])
def test_a_field_named_by_half_a_surrogate_is_ignored_like_others(stream):
    client = Client()
    answer = client.post("/v1/completions", {"prompt": "x", "\ud800": 1, "stream": stream})
    assert answer.status_code == 200
    assert answer.headers["x-edgellm-ignored"] == "%3F"
    assert client.engine.running == set()


def test_more_prompts_than_ever_fit_are_no_matter_of_waiting():
    client = Client(engine=FakeEngine(max_requests=2))
    answer = client.post("/v1/completions", {"prompt": ["x", "y", "z"]})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"
    assert "3 prompts, and this server takes 2" in answer.json()["error"]["message"]
    assert client.engine.requests == []


def test_several_prompts_run_together_or_not_at_all():
    client = Client(engine=FakeEngine([Reply(hold=True)], limit=1))
    answer = client.post("/v1/completions", {"prompt": ["x", "y"]})
    assert answer.status_code == 429
    assert _soon(lambda: not client.engine.running)


def test_stream_options_without_a_stream():
    assert Client().chat(stream_options={}).json()["error"]["param"] == "stream_options"


def _soon(holds, seconds=2.0):
    import time

    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()
