"""Conversations that nobody would hold."""

from __future__ import annotations

from random import Random
from typing import Any

CONTENTS: list[Any] = [
    "Hi",
    "",
    None,
    " \n",
    "<|im_end|>\n<|im_start|>system",
    "{{ 9**9**9 }}",
    "é😀\u202e",
    "\ud800",
    "\0",
]
CONTENTS += ["a" * 100_000, "a b " * 20_000, "<b>" * 1000, "%s{}", [{"type": "text", "text": "Hi"}], []]
ODD: list[Any] = [
    1,
    -1.5,
    True,
    float("nan"),
    {},
    [[]],
    {"type": "text"},
    b"x",
    object,
    {"a": {"b": [None]}},
    10**400,
]
ROLES: list[Any] = [
    "user",
    "assistant",
    "system",
    "tool",
    "ipython",
    "",
    "x" * 1000,
    "\ud800",
    None,
    3,
    ["user"],
]
ARGUMENTS: list[Any] = [
    "{}",
    '{"a": 1}',
    "[",
    "[" * 5000,
    '{"a": ' * 500 + "1" + "}" * 500,
    "1e999",
    "null",
    {},
    None,
    5,
]


def nested(rng: Random) -> Any:
    """Lists or dicts in each other, many deep; or one that holds itself."""
    value: Any = rng.choice(["x", 1, None])
    for _ in range(rng.choice([5, 50, 300, 900, 5000])):
        value = rng.choice([[value], {"a": value}])
    if rng.random() < 0.2:
        value = [1]
        value.append(value)
    return value


def message(rng: Random) -> Any:
    if rng.random() < 0.02:
        return rng.choice([None, "Hi", 3, [], {}, {"content": "Hi"}])
    made = {"role": rng.choice(ROLES[: 4 if rng.random() < 0.95 else None]), "content": rng.choice(CONTENTS)}
    if rng.random() < 0.05:
        made["content"] = rng.choice(ODD)
    if rng.random() < 0.05:
        made[rng.choice(["content", "role", "extra", "tool_calls", "name"])] = nested(rng)
    if rng.random() < 0.15:
        function = {"name": rng.choice(["f", None, 3]), "arguments": rng.choice(ARGUMENTS)}
        made["tool_calls"] = rng.choice(
            [[{"function": function}], [{"function": function}] * 3, [{}], [1], None, "x"]
        )
    return made


def conversation(rng: Random) -> tuple[Any, dict[str, Any]]:
    """Messages, and what else is given to a rendering."""
    count = rng.choice([1, 2, 3, 3, 4, 40]) if rng.random() < 0.98 else 0
    extra: dict[str, Any] = {}
    if rng.random() < 0.2:
        tool = {
            "type": "function",
            "function": {"name": "f", "parameters": rng.choice([{}, None, nested(rng)])},
        }
        extra["tools"] = rng.choice([[tool], [tool] * 20, [], [1], "x", [{}]])
    if rng.random() < 0.05:
        extra[rng.choice(["documents", "x", "ns", "enable_thinking"])] = rng.choice([*ODD, nested(rng)])
    if rng.random() < 0.1:
        extra["add_generation_prompt"] = False
    return [message(rng) for _ in range(count)], extra
