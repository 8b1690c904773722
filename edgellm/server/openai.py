"""`/v1`: OpenAI's API."""

from __future__ import annotations

import logging
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.errors import ModelNotFoundError, UsageError
from edgellm.server.body import read_object
from edgellm.server.call import Call, stream, whole
from edgellm.server.config import ServerConfig
from edgellm.server.errors import json_response
from edgellm.server.fields import CHAT, COMPLETION, Checked, Field, Unsupported, check_fields
from edgellm.server.model import ServedModel
from edgellm.server.shapes import ChatShape, Json, TextShape
from edgellm.server.slot import ModelSlot
from edgellm.server.streaming import EventStream, unless_gone

_LOG = logging.getLogger("edgellm.server")
COMPLETION_TOKENS = 16  # what /v1/completions generates when nobody says how much, as OpenAI's does


async def list_models(request: Request) -> Response:
    return json_response({"object": "list", "data": [_model_json(_slot(request).model)]})


async def show_model(request: Request) -> Response:
    model = _slot(request).model
    _check_name(request.path_params["name"], model)
    return json_response(_model_json(model))


async def chat_completions(request: Request) -> Response | EventStream:
    model, fields = await checked(request, CHAT)
    return await _answer(request, await run_in_threadpool(_chat_call, model, fields))


async def completions(request: Request) -> Response | EventStream:
    model, fields = await checked(request, COMPLETION)
    return await _answer(request, await run_in_threadpool(_text_call, model, fields))


ROUTES = [
    Route("/v1/models", list_models, methods=["GET"]),
    Route("/v1/models/{name:path}", show_model, methods=["GET"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/completions", completions, methods=["POST"]),
]


def _slot(request: Request) -> ModelSlot:
    slot: ModelSlot = request.app.state.slot
    return slot


async def checked(request: Request, table: tuple[Field | Unsupported, ...]) -> tuple[ServedModel, Checked]:
    """The model that is asked, and the body's fields. Raises what is wrong with them."""
    config: ServerConfig = request.app.state.config
    model = _slot(request).model
    fields = check_fields(await read_object(request, config.max_body_bytes), table, config.strict)
    if fields.unknown:
        _LOG.warning("%s: unknown fields ignored: %.500s", request.url.path, list(fields.unknown))
    if "model" in fields.values:
        _check_name(fields.values["model"], model)
    return model, fields


def _check_name(name: str, model: ServedModel) -> None:
    if name != model.name:
        raise ModelNotFoundError(f"there is no model {name[:200]!r} here; this server has {model.name!r}")


def _chat_call(model: ServedModel, fields: Checked) -> Call:
    limit = _one_limit(fields)
    top = fields.get("top_logprobs")
    if top is not None and not fields.get("logprobs", False):
        raise UsageError("top_logprobs needs logprobs: true", "top_logprobs")
    logprobs = (top or 0) if fields.get("logprobs", False) else None
    params = fields.params(model.defaults, max_tokens=limit, logprobs=logprobs)
    return Call(model, ChatShape(), fields, [_chat_prompt(model, fields.get("messages"))], params)


def _one_limit(fields: Checked) -> int | None:
    """`max_completion_tokens`, or `max_tokens`, its older name."""
    new, old = fields.get("max_completion_tokens"), fields.get("max_tokens")
    if new is not None and old is not None and new != old:
        raise UsageError(
            f"max_completion_tokens is {new} and max_tokens {old}, two names of one thing: give one",
            "max_tokens",
        )
    limit: int | None = old if new is None else new
    return limit


def _chat_prompt(model: ServedModel, messages: list[dict[str, Any]]) -> list[int]:
    try:
        return model.chat_prompt(messages)
    except UsageError as error:
        # A template's complaint, or the tokenizer's about some text in it: the messages are at fault.
        error.param = "messages"
        raise


def _text_call(model: ServedModel, fields: Checked) -> Call:
    limit = fields.get("max_tokens", COMPLETION_TOKENS)
    params = fields.params(model.defaults, max_tokens=limit)
    prompts = [_text_prompt(model, p) for p in fields.get("prompt")]
    return Call(model, TextShape(), fields, prompts, params)


def _text_prompt(model: ServedModel, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, list):
        return prompt
    try:
        return model.tokenizer.encode(prompt)
    except UsageError as error:
        error.param = "prompt"
        raise


async def _answer(request: Request, call: Call) -> Response | EventStream:
    if call.fields.get("stream_options") is not None and not call.streams:
        raise UsageError("stream_options needs stream: true", "stream_options")
    headers, answering = call.headers, call.start()
    if call.streams:
        config: ServerConfig = request.app.state.config
        items = stream(call, answering, config.ping_seconds)
        return EventStream(items, headers, answering.cancel)
    with answering:
        body = await unless_gone(request.receive, whole(call, answering))
    if body is None:
        return Response(status_code=499)  # for the log: nobody is there to read it
    return json_response(body, headers=headers)


def _model_json(model: ServedModel) -> Json:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "edgellm",
        "context_length": model.engine.context_length,
    }
