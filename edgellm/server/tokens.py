"""`/tokenize` and `/detokenize`."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.errors import UsageError
from edgellm.server.errors import json_response
from edgellm.server.fields import DETOKENIZE, TOKENIZE
from edgellm.server.openai import checked


async def tokenize(request: Request) -> Response:
    """`{"content", "add_special": false, "parse_special": false}` to `{"tokens": [...]}`."""
    model, fields = await checked(request, TOKENIZE)
    add, parse = fields.get("add_special", False), fields.get("parse_special", False)
    try:
        tokens = await run_in_threadpool(model.tokenizer.encode, fields.get("content"), add, parse)
    except UsageError as error:
        error.param = "content"
        raise
    return json_response({"tokens": tokens})


async def detokenize(request: Request) -> Response:
    """`{"tokens", "skip_special": false}` to `{"content": "..."}`."""
    model, fields = await checked(request, DETOKENIZE)
    try:
        tokens, skip = fields.get("tokens"), fields.get("skip_special", False)
        text = await run_in_threadpool(model.tokenizer.decode, tokens, skip)
    except UsageError as error:
        error.param = "tokens"
        raise
    return json_response({"content": text})


ROUTES = [
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
]
