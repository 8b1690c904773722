"""Health, models, and errors that have nothing to do with a request's fields."""

from __future__ import annotations

import threading

import pytest
from asgi_client import Client
from fake_engine import FakeTokenizer

from edgellm.server.config import ServerConfig


def test_health_says_loading_then_ok():
    client = Client(empty=True)
    before = client.get("/health")
    assert (before.status_code, before.json()) == (503, {"status": "loading"})
    client.slot.fill(Client().slot.model)
    after = client.get("/health")
    assert (after.status_code, after.json()) == (200, {"status": "ok"})


def test_while_loading_requests_are_asked_to_come_again():
    answer = Client(empty=True).chat()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "model_loading"


def test_a_model_that_comes_after_the_end_is_closed():
    client, late = Client(empty=True), Client()
    client.slot.close()
    client.slot.fill(late.slot.model)
    assert late.engine.closed
    assert not client.slot.ready


def test_models_are_listed_and_shown():
    client = Client()
    listed = client.get("/v1/models").json()
    assert listed["object"] == "list"
    [model] = listed["data"]
    assert model["id"] == "fake:1"
    assert model["context_length"] == 1000
    assert client.get("/v1/models/fake:1").json() == model


@pytest.mark.parametrize("path", ["/v1/models/other", "/v1/models/hf.co/a/b:Q4_0"])
def test_unknown_models_are_404(path):
    answer = Client().get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "fake:1" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
    ],
)
def test_wrong_routes_and_methods_have_openai_bodies(method, path, status):
    answer = Client().request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(("path", "name"), [("//v1/models", "//v1/models"), ("/a%3Fb", "/a?b")])
def test_a_wrong_route_is_named_as_it_was_asked_for(path, name):
    answer = Client().get(f"http://localhost{path}")
    assert answer.status_code == 404
    assert f"there is no {name} here" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "must be an object"),
        (b'"text"', "must be an object"),
        (b"\xff{}", "not UTF-8"),
        (b'{"temperature": NaN}', "NaN"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a":' * 100_000, "nested"),
    ],
)
def test_bodies_that_are_no_json_object_are_400(content, says):
    answer = Client().request("POST", "/v1/chat/completions", content=content)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_bodies_beyond_the_limit_are_413():
    client = Client(config=ServerConfig(max_body_bytes=100))
    assert client.chat(user="x" * 200).status_code == 413

    async def endless():
        for _ in range(50):
            yield b" " * 10

    answer = client.request("POST", "/v1/chat/completions", content=endless())
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert client.engine.requests == []


def test_tokenize_and_detokenize_are_inverse():
    client = Client()
    tokens = client.post("/tokenize", {"content": "Grüße", "add_special": False}).json()["tokens"]
    assert tokens == [ord(c) for c in "Grüße"]
    assert client.post("/detokenize", {"tokens": tokens}).json() == {"content": "Grüße"}
    assert client.post("/tokenize", {"content": "a", "add_special": True}).json()["tokens"] == [2, 97]


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [("/tokenize", {"content": "a"}, "encode"), ("/detokenize", {"tokens": [97]}, "decode")],
)
def test_long_texts_do_not_hold_the_event_loop_up(monkeypatch, path, body, method):
    client, threads = Client(), []
    work = getattr(FakeTokenizer, method)

    def watched(*arguments):
        threads.append(threading.current_thread())
        return work(*arguments)

    monkeypatch.setattr(FakeTokenizer, method, watched)
    assert client.post(path, body).status_code == 200
    assert threads != []
    assert threading.current_thread() not in threads


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "content"),
        ("/tokenize", {"content": 5}, "content"),
        ("/tokenize", {"content": "\ud800"}, "content"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [2**40]}, "tokens"),
    ],
)
def test_what_cannot_be_tokenized_is_a_400_that_names_the_field(path, body, param):
    answer = Client().post(path, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
