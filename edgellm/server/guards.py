"""Who may ask: the host that is asked for, the page that asks, the key.

A server on the loopback address is reachable from every web page that the user has open. Two things keep
such pages out: a name that was pointed at 127.0.0.1 to get round the browser's rules (DNS rebinding) is not
a host of ours, and a request that names a foreign page as its origin is refused before it is read.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgellm.errors import UsageError
from edgellm.server.config import ServerConfig
from edgellm.server.errors import http_error

PUBLIC = frozenset({"/health"})  # answered without a key
_CORS = {
    "access-control-allow-methods": "GET, POST, OPTIONS",
    "access-control-max-age": "600",
}

Guard = Callable[[Scope, Headers], Response | None]


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine only."""
    if host.lower().rstrip(".") == "localhost" or host.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def check_key(key: str) -> None:
    """UsageError for a key that no client could send."""
    if not key or not all("!" <= character <= "~" for character in key):
        raise UsageError(
            "the API key must be letters, digits and signs of ASCII, without spaces, at least one", "api_key"
        )


def guards(config: ServerConfig) -> list[Guard]:
    """What a request has to pass, in order."""
    found: list[Guard] = [_check_origin]
    if is_loopback(config.host):
        found.append(_check_host)
    if config.api_key is not None:
        found.append(_key_check(config.api_key))
    return found


def _check_host(scope: Scope, headers: Headers) -> Response | None:
    host = headers.get("host")
    if host is None or is_loopback(_host_of(f"//{host}")):
        return None
    return http_error(403, f"this server answers for localhost only, not for {host[:100]!r}")


def _check_origin(scope: Scope, headers: Headers) -> Response | None:
    origin = headers.get("origin")
    if origin is None or is_loopback(_host_of(origin)):
        return None
    if origin.partition("://")[2] == headers.get("host"):
        return None
    return http_error(
        403, f"web pages of {origin[:100]!r} may not use this server, only those of this machine"
    )


def _key_check(key: str) -> Guard:
    expected = key.encode()

    def check(scope: Scope, headers: Headers) -> Response | None:
        if scope["path"] in PUBLIC:
            return None
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if hmac.compare_digest(given.encode("utf-8", "replace"), expected):
            return None
        what = "the API key is wrong" if given else "there is no API key in the request"
        message = f"{what}: send the server's as 'Authorization: Bearer KEY'"
        return http_error(401, message, {"WWW-Authenticate": "Bearer"})

    return check


class Gate:
    """Lets a request through to the app, or answers it; tells pages of this machine that they may read."""

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app, self._guards = app, guards(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        await self._respond(scope, headers)(scope, receive, _with_cors(send, headers.get("origin")))

    def _respond(self, scope: Scope, headers: Headers) -> ASGIApp:
        preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        for guard in self._guards[:1] if preflight else self._guards:
            refusal = guard(scope, headers)
            if refusal is not None:
                return refusal
        if preflight:
            asked = headers.get("access-control-request-headers", "")
            return Response(status_code=204, headers={**_CORS, "access-control-allow-headers": asked})
        return self._app


def _with_cors(send: Send, origin: str | None) -> Send:
    """`send`, adding the header that lets the page at `origin` read the answer."""
    if origin is None or not is_loopback(_host_of(origin)):
        return send

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-expose-headers"] = "x-edgellm-ignored"
            headers.add_vary_header("Origin")
        await send(message)

    return sending
