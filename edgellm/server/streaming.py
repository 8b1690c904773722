"""Server-sent events, and noticing that the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from edgellm.server.errors import dump_json

R = TypeVar("R")
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def event(body: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + dump_json(body) + b"\n\n"


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, R]) -> R | None:
    """The work's result; None if the client goes away first, and then the work is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A response that sends what a generator yields, as it comes. `on_end` is called however it ends.

    (The generator's own clean-up is not enough: one that was never started has none.)
    """

    def __init__(
        self, items: AsyncGenerator[bytes, None], headers: Mapping[str, str], on_end: Callable[[], None]
    ) -> None:
        self._items, self._on_end = items, on_end
        fixed = {
            "content-type": "text/event-stream; charset=utf-8",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",  # proxies would hold tokens back
        }
        self._headers = [(k.encode(), v.encode("latin-1")) for k, v in {**fixed, **headers}.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._send_all(send))
        finally:
            self._on_end()

    async def _send_all(self, send: Send) -> None:
        async with aclosing(self._items) as items:
            await send({"type": "http.response.start", "status": 200, "headers": self._headers})
            async for item in items:
                await send({"type": "http.response.body", "body": item, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
