"""Messages as a caller gives them, checked, and as templates like them."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.errors import UsageError

Message = dict[str, Any]


def check_messages(messages: Any) -> list[Message]:
    """The messages, copied. UsageError (param "messages") says which one is wrong, and how.

    A message is a dict with a `role` (str) and a `content`: a str, None, or a list of text parts
    (`{"type": "text", "text": ...}`). Other keys are the template's business.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise _wrong(f"messages is a list of dicts, not {type(messages).__name__}")
    if not messages:
        raise _wrong("messages is empty: give at least one message")
    for index, message in enumerate(messages):
        _check_message(message, f"messages[{index}]")
    return [dict(message) for message in messages]


def _check_message(message: Any, where: str) -> None:
    if not isinstance(message, Mapping):
        raise _wrong(f"{where} is a dict with role and content, not {type(message).__name__}")
    if not isinstance(message.get("role"), str):
        raise _wrong(f"{where}.role is a string such as 'user', not {reprlib.repr(message.get('role'))}")
    content = message.get("content")
    if isinstance(content, list):
        for index, part in enumerate(content):
            _check_part(part, f"{where}.content[{index}]")
    elif content is not None and not isinstance(content, str):
        raise _wrong(f"{where}.content is a string or a list of parts, not {type(content).__name__}")
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(c, Mapping) for c in calls)):
        raise _wrong(f"{where}.tool_calls is a list of dicts")


def _check_part(part: Any, where: str) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(kind, str):
        raise _wrong(f"{where} is a dict with a type, such as {{'type': 'text', 'text': ...}}")
    if kind != "text":
        raise _wrong(f"{where} is of type {reprlib.repr(kind)}, but only text is supported: leave it out")
    if not isinstance(part.get("text"), str):
        raise _wrong(f"{where}.text is a string, not {type(part.get('text')).__name__}")


def check_tools(tools: Any) -> list[dict[str, Any]] | None:
    """The tools, or None. UsageError (param "tools") if they are no list of dicts."""
    if tools is None:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UsageError("tools is a list of dicts, each a function's JSON schema, or None", param="tools")
    return [dict(tool) for tool in tools]


def simplified(messages: list[Message]) -> list[Message]:
    """Messages in the form that nearly all templates take.

    Text parts are joined with newlines into one string, and a tool call's arguments, which travel as
    JSON text, are the object they stand for.
    """
    return [_simplified(message) for message in messages]


def _simplified(message: Message) -> Message:
    result = dict(message)
    if isinstance(message.get("content"), list):
        result["content"] = "\n".join(part["text"] for part in message["content"])
    if message.get("tool_calls"):
        result["tool_calls"] = [_with_object(call) for call in message["tool_calls"]]
    return result


def _with_object(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return dict(call)
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return dict(call)
    if not isinstance(arguments, dict):
        return dict(call)
    return {**call, "function": {**function, "arguments": arguments}}


def _wrong(message: str) -> UsageError:
    return UsageError(message, param="messages")
