"""Exceptions to answers: OpenAI's error body, `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.errors import (
    ContextLengthError,
    EdgeLLMError,
    EngineClosedError,
    MemoryLimitError,
    ModelNotFoundError,
    QueueFullError,
    UsageError,
)

_LOG = logging.getLogger("edgellm.server")


@dataclass(frozen=True)
class _Answer:
    """How an exception is answered: status, and the body's type and code."""

    status: int
    type: str
    code: str | None
    headers: Mapping[str, str] = field(default_factory=dict)


_RETRY = {"Retry-After": "1"}
_ANSWERS: dict[type[Exception], _Answer] = {
    ContextLengthError: _Answer(400, "invalid_request_error", "context_length_exceeded"),
    UsageError: _Answer(400, "invalid_request_error", "invalid_value"),
    ModelNotFoundError: _Answer(404, "invalid_request_error", "model_not_found"),
    QueueFullError: _Answer(429, "rate_limit_error", "queue_full", _RETRY),
    EngineClosedError: _Answer(503, "server_error", "shutting_down", _RETRY),
    MemoryLimitError: _Answer(503, "server_error", "out_of_memory", _RETRY),
    EdgeLLMError: _Answer(500, "server_error", "model_failed"),
    Exception: _Answer(500, "server_error", "internal_error"),
}


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(dump_json(body), status, dict(headers or {}), "application/json")


def dump_json(body: Any) -> bytes:
    """JSON in UTF-8. Half a surrogate pair, which only JSON can carry, becomes a question mark."""
    text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _answer_to(error: Exception) -> _Answer:
    return next(_ANSWERS[kind] for kind in type(error).__mro__ if kind in _ANSWERS)


def body_of(error: Exception) -> dict[str, Any]:
    """The error body for an exception. What nobody raised on purpose is logged, and not described."""
    answer = _answer_to(error)
    if isinstance(error, EdgeLLMError):
        message = str(error)
    else:
        _LOG.error("a request failed unexpectedly", exc_info=error)
        message = f"the server failed on this request ({type(error).__name__}); its log says more"
    return error_body(message, answer.type, getattr(error, "param", None), answer.code)


async def on_error(request: Request, error: Exception) -> Response:
    """The answer to anything that an endpoint raised."""
    answer = _answer_to(error)
    return json_response(body_of(error), answer.status, answer.headers)


class CutOff:
    """Answers requests that the server's end cuts off: the only cancellation that comes from without.

    Left to uvicorn, each would be a bare 500 and a traceback in the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            if not started:
                error = EngineClosedError("the server ends before the request is answered: try again later")
                answer = await on_error(Request(scope), error)
                await answer(scope, receive, send)


async def on_http_error(request: Request, error: Exception) -> Response:
    """The answer to what Starlette raises: no such route, wrong method; and to our own HTTPExceptions."""
    assert isinstance(error, HTTPException)
    message = _MESSAGES.get(error.status_code, error.detail)
    if error.status_code in _MESSAGES:
        message = message.format(method=request.method, path=request.scope["path"])
    return http_error(error.status_code, message, error.headers)


_MESSAGES = {
    404: "there is no {path} here; /v1/models and /v1/chat/completions are",
    405: "{path} does not answer to {method}; the Allow header says to what it does",
}
_CODES = {
    HTTPStatus.UNAUTHORIZED: "invalid_api_key",
    HTTPStatus.NOT_FOUND: "unknown_url",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "model_loading",
}


def http_error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error answer for a plain HTTP status."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return json_response(error_body(message, kind, None, _CODES.get(HTTPStatus(status))), status, headers)
