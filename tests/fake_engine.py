"""An engine that needs no model: it answers with replies that a test has queued."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from edgellm.engine.request import (
    Chunk,
    Deliver,
    Failed,
    Finished,
    FinishReason,
    Progress,
    Request,
    Timings,
    TokenLogprob,
)
from edgellm.errors import ContextLengthError, EngineClosedError, QueueFullError, UsageError
from edgellm.server.model import ServedModel


@dataclass
class Reply:
    """What to answer: pieces of text (each choice gets them), then `error` or the end.

    `gap_s` lies before each piece; with `hold` the last piece waits until the request is cancelled.
    """

    pieces: tuple[str, ...] = ("Hello", " there")
    finish_reason: FinishReason = "stop"
    error: Exception | None = None
    gap_s: float = 0.0
    hold: bool = False


class _Running:
    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.closed = False


class FakeTicket:
    def __init__(self, running: _Running) -> None:
        self._running = running

    def cancel(self) -> None:
        self._running.stopped.set()


@dataclass
class FakeEngine:
    """Answers on threads of its own, as the real one does. Without a queued reply it says `Reply()`."""

    replies: Iterable[Reply] = ()
    context_length: int = 1000
    max_requests: int = 1000
    limit: int = 8
    requests: list[Request] = field(default_factory=list)
    running: set[Any] = field(default_factory=set)
    cancelled: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self._queue = deque(self.replies)

    def submit(self, request: Request, deliver: Deliver) -> FakeTicket:
        if self.closed:
            raise EngineClosedError("the engine is closed")
        size = len(request.prompt_token_ids)
        if size > self.context_length:
            raise ContextLengthError(
                f"the prompt has {size} tokens, but the context holds {self.context_length}", "prompt"
            )
        if len(self.running) >= self.limit:
            raise QueueFullError(f"{self.limit} requests run: try again later")
        self.requests.append(request)
        running = _Running()
        self.running.add(running)
        reply = self._queue.popleft() if self._queue else Reply()
        threading.Thread(target=self._answer, args=(request, deliver, reply, running), daemon=True).start()
        return FakeTicket(running)

    def close(self) -> None:
        self.closed = True
        for running in list(self.running):
            running.closed = True
            running.stopped.set()

    def _answer(self, request: Request, deliver: Deliver, reply: Reply, running: _Running) -> None:
        prompt, made = len(request.prompt_token_ids), 0
        deliver(Progress(prompt, prompt, 0))
        for number, piece in enumerate(reply.pieces):
            last = number == len(reply.pieces) - 1
            running.stopped.wait(None if reply.hold and last else reply.gap_s)
            if running.stopped.is_set():
                break
            made += len(piece)
            for index in range(request.params.n):
                reason = reply.finish_reason if last and reply.error is None else None
                deliver(_chunk(request, index, piece, reason))
        self.running.discard(running)
        if running.closed:
            deliver(Failed(EngineClosedError("the engine was closed before the request was finished")))
        elif reply.error is not None:
            deliver(Failed(reply.error))
        else:
            self.cancelled += running.stopped.is_set()
            deliver(Finished(Timings(0.001, 0.01, 0.1, prompt, prompt // 2, made * request.params.n)))


def _chunk(request: Request, index: int, piece: str, reason: FinishReason | None) -> Chunk:
    ids = tuple(map(ord, piece))
    top = request.params.logprobs
    logprobs: tuple[TokenLogprob, ...] = ()
    if top is not None:
        likeliest = [(65, -0.25), (66, float("-inf"))][:top]
        logprobs = tuple(TokenLogprob(i, -0.5, tuple(likeliest)) for i in ids)
    return Chunk(index, piece, ids, logprobs, reason)


class FakeTokenizer:
    """A token is a character; the begin of text is 2."""

    add_space_prefix = False

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise UsageError("the text holds half of a surrogate pair", "text")
        return [2] * add_special + [ord(c) for c in text]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        listed = list(ids)
        if any(i > 0x10FFFF for i in listed):
            raise UsageError(f"token id {max(listed)} is not in the vocabulary", "ids")
        return "".join(map(chr, listed))

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes:
        return chr(token_id).encode()

    def is_special(self, token_id: int) -> bool:
        return token_id == 2


def fake_prompt(messages: list[dict[str, Any]]) -> list[int]:
    text = "".join(f"<{m['role']}>{m['content']}" for m in messages)
    return FakeTokenizer().encode(text, add_special=False)


def fake_model(engine: FakeEngine, defaults: dict[str, Any] | None = None) -> ServedModel:
    return ServedModel("fake:1", engine, FakeTokenizer(), fake_prompt, defaults or {})
