"""A client that goes away cancels what it asked for."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from asgi_client import Client
from fake_engine import Reply


async def _ask_and_leave(client: Client, body: dict, leave: asyncio.Event, sent: list) -> None:
    """One request over bare ASGI, whose client goes away when `leave` is set."""
    content = json.dumps(body).encode()
    incoming = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive():
        for message in incoming:
            return message
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost"), (b"content-length", str(len(content)).encode())],
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 8080),
    }
    await client.app(scope, receive, send)


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_cancels(stream):
    client = Client(Reply(("a", "b", "c"), hold=True))
    body = {"messages": [{"role": "user", "content": "x"}], "stream": stream, "n": 2}

    async def scenario():
        leave, sent = asyncio.Event(), []
        asked = asyncio.create_task(_ask_and_leave(client, body, leave, sent))
        await asyncio.sleep(0.1)
        assert len(client.engine.running) == 1
        leave.set()
        await asyncio.wait_for(asked, 1)
        return sent

    sent = asyncio.run(scenario())
    end = time.monotonic() + 1
    while client.engine.running and time.monotonic() < end:
        time.sleep(0.005)
    assert not client.engine.running
    assert any(b'"content":"a"' in m.get("body", b"") for m in sent) == stream


def test_leaving_before_the_stream_began_cancels_too():
    client = Client(Reply(hold=True))

    async def scenario():
        leave = asyncio.Event()
        leave.set()
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
        await asyncio.wait_for(_ask_and_leave(client, body, leave, []), 1)

    asyncio.run(scenario())
    end = time.monotonic() + 1
    while client.engine.running and time.monotonic() < end:
        time.sleep(0.005)
    assert not client.engine.running


def test_an_answer_that_was_read_to_its_end_is_not_cancelled():
    client = Client()
    assert client.chat().status_code == 200
    assert client.chat(stream=True).status_code == 200
    assert client.engine.cancelled == 0
