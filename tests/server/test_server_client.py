"""The default model behind a real server, asked by OpenAI's own client."""

from __future__ import annotations

import time

import httpx
import openai
import pytest

MODEL = "smollm2:135m"
MESSAGES = [{"role": "user", "content": "Name three colours."}]


@pytest.fixture
def client(real_server):
    with openai.OpenAI(base_url=f"{real_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_stream_and_whole_answer_say_the_same(client):
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "seed": 7, "temperature": 0.9}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens <= 24
    # The prompt was there before: all of it but its last token comes from the cache.
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens == whole.usage.prompt_tokens - 1


def test_log_probabilities(client):
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 4, "temperature": 0}
    answer = client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob == pytest.approx(token.top_logprobs[0].logprob)
        assert token.token == token.top_logprobs[0].token
    assert "".join(t.token for t in content) == answer.choices[0].message.content


def test_stop_strings_are_cut_off(client):
    asked = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "temperature": 0}
    free = client.chat.completions.create(**asked).choices[0].message.content
    stop = free[len(free) // 2 :][:3]
    stopped = client.chat.completions.create(**asked, stop=[stop]).choices[0]
    assert stopped.message.content == free.partition(stop)[0]
    assert stopped.finish_reason == "stop"


def test_text_completions_of_several_prompts(client):
    answer = client.completions.create(model=MODEL, prompt=["Once", "Twice"], n=2, max_tokens=3)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert answer.usage.completion_tokens <= 12


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "messages"),
    ],
)
def test_bad_requests_name_their_field(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **wrong})
    assert caught.value.param == param


def test_many_at_once_are_answered_or_told_to_wait(real_server):
    import asyncio

    async def ask(client: httpx.AsyncClient) -> int:
        body = {"messages": MESSAGES, "max_tokens": 4}
        return (await client.post(f"{real_server.url}/v1/chat/completions", json=body)).status_code

    async def all_of_them() -> list[int]:
        async with httpx.AsyncClient(timeout=60) as client:
            return await asyncio.gather(*(ask(client) for _ in range(20)))

    assert set(asyncio.run(all_of_them())) == {200}


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_ends_the_work(real_server, stream):
    body = {"messages": MESSAGES, "ignore_eos": True, "stream": stream}
    url = f"{real_server.url}/v1/chat/completions"
    for _ in range(4):  # as many as run at once: were they still running, the last would have to wait
        if stream:
            with httpx.stream("POST", url, json=body) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(url, json=body, timeout=httpx.Timeout(5, read=0.1))
    began = time.monotonic()
    answer = httpx.post(url, json={"messages": MESSAGES, "max_tokens": 2}, timeout=30).json()
    assert answer["timings"]["queued_s"] < 0.3
    assert time.monotonic() - began < 3
