"""A request's bytes to a JSON object."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from edgellm.errors import UsageError


async def read_object(request: Request, limit: int) -> dict[str, Any]:
    """A request's JSON object. UsageError if it is none, HTTPException 413 beyond `limit` bytes."""
    return parse_object(await _read(request, limit))


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise HTTPException(400, "the client went away before its request was whole") from None
    return bytes(data)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the request's body is larger than {limit} bytes: shorten it")


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. UsageError says where it is broken."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, parse_int=_parse_int)
    except UnicodeDecodeError as error:
        raise UsageError(f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from None
    except json.JSONDecodeError as error:
        raise UsageError(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise UsageError("the body is nested too deeply: flatten it") from None
    if not isinstance(value, dict):
        raise UsageError(f"the body is a JSON {type(value).__name__}, but it must be an object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise UsageError(f"the body holds {name}, which is not JSON")


def _parse_int(digits: str) -> int:
    # Python refuses integers of more than a few thousand digits by a bare ValueError.
    if len(digits) > 40:
        raise UsageError(f"the body holds an integer of {len(digits)} digits; at most 40 are read")
    return int(digits)
