"""The fields of requests, checked: one row each, and nothing is silently dropped.

`null` stands for a field's default, as in OpenAI's API. A `Field` is used; an `Unsupported` one is known but
may only have a neutral value; any other is named in `Checked.unknown`.

How to add one: a row in a table below; where it steers the sampler, `sampling` names what it sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgellm.errors import UsageError, shown
from edgellm.sampling import SamplingParams
from edgellm.sampling.params import MAX_STOPS, NUMBERS

Check = Callable[[Any], Any]  # gives the value to use, or raises ValueError with the limit it breaks


@dataclass(frozen=True)
class Field:
    """A field that is used: its check, and the field of SamplingParams that it sets, if any."""

    name: str
    check: Check
    sampling: str | None = None
    required: bool = False


@dataclass(frozen=True)
class Unsupported:
    """A field that is known, and has no effect here: it may be null or one of `neutral`."""

    name: str
    neutral: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Checked:
    """The values of fields that were given, and the names that nobody knows."""

    values: Mapping[str, Any]
    sampling: Mapping[str, Any]
    unknown: tuple[str, ...]

    def get(self, name: str, default: Any = None) -> Any:
        return self.values.get(name, default)

    def params(self, defaults: Mapping[str, Any], **more: Any) -> SamplingParams:
        """Sampling parameters: what was given, over the model's defaults."""
        return SamplingParams(**{**defaults, **self.sampling, **more})


def check_fields(body: Mapping[str, Any], table: Iterable[Field | Unsupported], strict: bool) -> Checked:
    """Check a body against a table. UsageError names the field, its value and the limit."""
    rows = {row.name: row for row in table}
    given = {name: value for name, value in body.items() if value is not None}
    unknown = tuple(name for name in given if name not in rows)
    if unknown and strict:
        raise UsageError(f"nobody knows the field {shown(unknown[0])}: leave it out", unknown[0][:100])
    values: dict[str, Any] = {}
    sampling: dict[str, Any] = {}
    for row in rows.values():
        if isinstance(row, Field) and row.required and row.name not in given:
            raise UsageError(f"{row.name} is missing", row.name)
        if row.name in given:
            values[row.name] = _checked(row, given[row.name])
            if isinstance(row, Field) and row.sampling:
                sampling[row.sampling] = values[row.name]
    return Checked(values, sampling, unknown)


def _checked(row: Field | Unsupported, value: Any) -> Any:
    if isinstance(row, Field):
        try:
            return row.check(value)
        except ValueError as limit:
            raise UsageError(f"{row.name} is {shown(value)}: {limit}", row.name) from None
    if not any(type(value) is type(n) and value == n for n in row.neutral):
        neutral = " or ".join(shown(n) for n in row.neutral) or "null"
        raise UsageError(
            f"{row.name} is {shown(value)}, which is not supported: leave it out, or give {neutral}",
            row.name,
        )
    return value


# -- checks -----


def number(kind: type[int] | type[float], low: float, high: float) -> Check:
    """A JSON number in a closed range; true is no number, and 1.5 no whole one."""
    what = "a whole number" if kind is int else "a number"

    def check(value: Any) -> Any:
        wrong = isinstance(value, bool) or not isinstance(value, int | (int if kind is int else float))
        if wrong or not low <= value <= high:
            raise ValueError(f"it must be {what} from {_plain(low)} to {_plain(high)}")
        return kind(value)

    return check


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def like(name: str) -> Check:
    """A number with the limits that the sampling field `name` has."""
    limits = NUMBERS[name]
    return number(limits.kind, limits.low, limits.high)


def flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it must be true or false")
    return value


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("it must be a string")
    return value


def stops(value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(s, str) and s for s in found):
        raise ValueError("it must be a string or a list of strings, none of them empty")
    if len(found) > MAX_STOPS:
        raise ValueError(f"there are {len(found)} strings, and at most {MAX_STOPS} are possible")
    return found


def biases(value: Any) -> dict[int, float]:
    """`{"token id": bias}`, biases from -100 to 100."""
    if not isinstance(value, dict) or not all(k.isascii() and k.isdecimal() and len(k) < 10 for k in value):
        raise ValueError("it must be an object whose keys are token ids")
    for bias in value.values():
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise ValueError("each bias must be a number from -100 to 100")
    return {int(k): float(v) for k, v in value.items()}


def token_ids(value: Any) -> list[int]:
    if not _is_ids(value):
        raise ValueError("it must be a list of token ids")
    return list(value)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and v >= 0 for v in value)


def prompts(value: Any) -> list[str | list[int]]:
    """One or more prompts, each a text or a list of token ids."""
    found = [value] if isinstance(value, str) or (value and _is_ids(value)) else value
    if not isinstance(found, list) or not found:
        raise ValueError("it must be a string, a list of token ids, or a list of either")
    if not all(isinstance(p, str) or (p and _is_ids(p)) for p in found):
        raise ValueError(
            "each prompt must be a string or a list of token ids, of which there is at least one"
        )
    if len(found) > MAX_PROMPTS:
        raise ValueError(f"there are {len(found)} prompts, and at most {MAX_PROMPTS} are possible")
    return found


def stream_options(value: Any) -> dict[str, bool]:
    known = {"include_usage", "include_obfuscation"}
    if not isinstance(value, dict) or not all(isinstance(v, bool) for v in value.values()):
        raise ValueError("it must be an object of flags")
    if value.keys() - known:
        raise ValueError(f"it may have {' and '.join(sorted(known))} only")
    return value


def messages(value: Any) -> list[dict[str, Any]]:
    """Messages with known roles; the chat template checks the rest. A developer is what a system was."""
    if not isinstance(value, list) or not value:
        raise ValueError("it must be a list of at least one message")
    for index, message in enumerate(value):
        if not isinstance(message, dict):
            raise ValueError(f"message {index} must be an object with role and content")
        if message.get("role") not in ROLES:
            raise ValueError(
                f"message {index} has role {shown(message.get('role'))}, not one of {', '.join(ROLES)}"
            )
        if message.get("content") is None and not message.get("tool_calls"):
            raise ValueError(f"message {index} has no content")
    return [{**m, "role": "system"} if m["role"] == "developer" else m for m in value]


def strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("it must be an object of strings")
    return value


# -- tables -----

ROLES = ("system", "developer", "user", "assistant", "tool")
MAX_PROMPTS = 64
_MAX_ID = 2**31 - 1

_SAMPLING = (
    Field("temperature", number(float, 0, 2), "temperature"),
    Field("top_p", like("top_p"), "top_p"),
    Field("top_k", like("top_k"), "top_k"),
    Field("min_p", like("min_p"), "min_p"),
    Field("typical_p", like("typical_p"), "typical_p"),
    Field("repeat_penalty", like("repeat_penalty"), "repeat_penalty"),
    Field("repeat_last_n", like("repeat_last_n"), "repeat_last_n"),
    Field("presence_penalty", like("presence_penalty"), "presence_penalty"),
    Field("frequency_penalty", like("frequency_penalty"), "frequency_penalty"),
    Field("seed", like("seed"), "seed"),
    Field("max_tokens", number(int, 1, _MAX_ID), "max_tokens"),
    Field("stop", stops, "stop"),
    Field("n", like("n"), "n"),
    Field("logit_bias", biases, "logit_bias"),
    Field("ignore_eos", flag, "ignore_eos"),
)
_COMMON = (
    Field("model", text),
    Field("stream", flag),
    Field("stream_options", stream_options),
    Field("user", text),  # says who asks; nothing depends on it
)

CHAT: tuple[Field | Unsupported, ...] = (
    *_COMMON,
    *_SAMPLING,
    Field("messages", messages, required=True),
    Field("max_completion_tokens", number(int, 1, _MAX_ID)),
    Field("logprobs", flag),
    Field("top_logprobs", number(int, 0, 20)),
    Field("metadata", strings),  # these three describe the request; nothing depends on them
    Field("safety_identifier", text),
    Field("prompt_cache_key", text),
    Unsupported("audio"),
    Unsupported("function_call", ("none", "auto")),
    Unsupported("functions", ([],)),
    Unsupported("modalities", (["text"],)),
    Unsupported("parallel_tool_calls", (True, False)),
    Unsupported("prediction"),
    Unsupported("reasoning_effort", ("none",)),
    Unsupported("response_format", ({"type": "text"},)),
    Unsupported("service_tier", ("auto", "default")),
    Unsupported("store", (False,)),
    Unsupported("tool_choice", ("none", "auto")),
    Unsupported("tools", ([],)),
    Unsupported("verbosity", ("medium",)),
    Unsupported("web_search_options"),
)

COMPLETION: tuple[Field | Unsupported, ...] = (
    *_COMMON,
    *_SAMPLING,
    Field("prompt", prompts, required=True),
    Field("logprobs", number(int, 0, 20), "logprobs"),
    Unsupported("best_of", (1,)),
    Unsupported("echo", (False,)),
    Unsupported("suffix", ("",)),
)

TOKENIZE: tuple[Field | Unsupported, ...] = (
    Field("model", text),
    Field("content", text, required=True),
    Field("add_special", flag),
    Field("parse_special", flag),
)

DETOKENIZE: tuple[Field | Unsupported, ...] = (
    Field("model", text),
    Field("tokens", token_ids, required=True),
    Field("skip_special", flag),
)
