"""The ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from edgellm.errors import EdgeLLMError
from edgellm.server import metrics, openai, tokens
from edgellm.server.config import ServerConfig
from edgellm.server.errors import CutOff, json_response, on_error, on_http_error
from edgellm.server.guards import Gate
from edgellm.server.slot import ModelSlot


async def health(request: Request) -> Response:
    """503 while the model loads, then 200."""
    slot: ModelSlot = request.app.state.slot
    return json_response({"status": "ok"}) if slot.ready else json_response({"status": "loading"}, 503)


def create_app(slot: ModelSlot, config: ServerConfig | None = None) -> Starlette:
    """The server's application over the model in `slot`, which may still be empty."""
    config = config or ServerConfig()
    routes: list[BaseRoute] = [
        Route("/health", health, methods=["GET"]),
        *metrics.ROUTES,
        *openai.ROUTES,
        *tokens.ROUTES,
    ]
    counted = metrics.Metrics(slot)
    slot.dress(counted.metered)
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(metrics.CountAnswers, counted, routes),
            Middleware(Gate, config),
            Middleware(CutOff),
        ],
        exception_handlers={
            HTTPException: on_http_error,
            EdgeLLMError: on_error,
            Exception: on_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.slot, app.state.config, app.state.metrics = slot, config, counted
    return app
