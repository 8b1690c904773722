"""Asks an ASGI application, without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from fake_engine import FakeEngine, Reply, fake_model

from edgellm.server.app import create_app
from edgellm.server.config import ServerConfig
from edgellm.server.slot import ModelSlot


class Client:
    """A server over a fake engine; every call is one request."""

    def __init__(
        self,
        *replies: Reply,
        config: ServerConfig | None = None,
        engine: FakeEngine | None = None,
        defaults: dict[str, Any] | None = None,
        empty: bool = False,
    ) -> None:
        self.engine = engine or FakeEngine(replies)
        self.slot = ModelSlot(None if empty else fake_model(self.engine, defaults))
        self.app = create_app(self.slot, config or ServerConfig())

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._request(method, path, **more))

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.request("POST", path, content=json.dumps(body), **more)

    def chat(self, **body: Any) -> httpx.Response:
        return self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **body})


def events(response: httpx.Response) -> list[Any]:
    """The events of a stream; comments as they are, [DONE] as a string."""
    assert response.headers["content-type"].startswith("text/event-stream")
    parts = [p for p in response.text.split("\n\n") if p]
    return [_event(p) for p in parts]


def _event(part: str) -> Any:
    if part.startswith(":"):
        return part
    data = part.removeprefix("data: ")
    return data if data == "[DONE]" else json.loads(data)
