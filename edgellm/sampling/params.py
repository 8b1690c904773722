"""What one request asks of the sampler: a frozen record, checked once, each field with its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgellm.errors import UsageError, shown

_INF = math.inf
_LARGEST_INT = 2**31 - 1
_LARGEST_BIAS = 1e15  # far above any logit; its square is finite in f32 after a repeat_penalty, too


@dataclass(frozen=True)
class Limits:
    """A number's kind and its closed range; `optional` fields may also be None."""

    kind: type[int] | type[float]
    low: float
    high: float
    optional: bool = False


NUMBERS: dict[str, Limits] = {
    "temperature": Limits(float, 0, 100),
    "top_k": Limits(int, 0, _LARGEST_INT),
    "top_p": Limits(float, 0, 1),
    "min_p": Limits(float, 0, 1),
    "typical_p": Limits(float, 0, 1),
    "top_n_sigma": Limits(float, -1, 1000),
    "xtc_probability": Limits(float, 0, 1),
    "xtc_threshold": Limits(float, 0, 1),
    "repeat_penalty": Limits(float, 0.01, 100),
    "repeat_last_n": Limits(int, -1, _LARGEST_INT),
    "presence_penalty": Limits(float, -2, 2),
    "frequency_penalty": Limits(float, -2, 2),
    "seed": Limits(int, -(2**63), 2**64 - 1, optional=True),
    "max_tokens": Limits(int, 0, _LARGEST_INT, optional=True),
    "n": Limits(int, 1, 128),
    "logprobs": Limits(int, 0, 100, optional=True),
}
MAX_STOPS = 64


@dataclass(frozen=True)
class SamplingParams:
    """How to choose tokens, and when to stop. Defaults and order of effect are llama.cpp's.

    `temperature` 0 takes the likeliest token (the lowest id on ties). Off are: `top_k` 0, `top_p` 1,
    `min_p` 0, `typical_p` 1, `top_n_sigma` -1 or 0, `xtc_probability` 0, `repeat_penalty` 1. Penalties
    look at the last `repeat_last_n` tokens of prompt and answer (0: none, -1: all). `seed` None draws one
    at random. `max_tokens` None goes on to the end of the context. `stop` holds strings that end the
    answer and are cut off; a token of `stop_token_ids` ends it too. `ignore_eos` forbids the tokens that
    end a generation. `logprobs` is the number of likeliest tokens to report beside each chosen one.
    `logit_bias` is added per token id before all else; -inf forbids a token.

    Raises UsageError, naming field, value and limits.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repeat_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    n: int = 1
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, limits in NUMBERS.items():
            object.__setattr__(self, name, _number(name, getattr(self, name), limits))
        if not isinstance(self.ignore_eos, bool):
            raise _wrong("ignore_eos", self.ignore_eos, "it must be True or False")
        object.__setattr__(self, "stop", _stops(self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids(self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        return tuple(self.stop)


def _wrong(name: str, value: object, limit: str) -> UsageError:
    return UsageError(f"{name} is {shown(value)}: {limit}", name)


def _number(name: str, value: Any, limits: Limits) -> float | int | None:
    if value is None and limits.optional:
        return None
    what = "a whole number" if limits.kind is int else "a number"
    limit = f"it must be {what} from {_plain(limits.low)} to {_plain(limits.high)}" + (
        ", or None" if limits.optional else ""
    )
    exact = _exact(value, limits.kind)
    if exact is None or not limits.low <= exact <= limits.high:
        raise _wrong(name, value, limit)
    return exact


def _plain(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _exact(value: Any, kind: type[int] | type[float]) -> int | float | None:
    """`value` as `kind`, or None where it is something else (True is no number, NaN nothing)."""
    if isinstance(value, bool):
        return None
    if kind is int:
        return int(value) if hasattr(value, "__index__") else None
    if not isinstance(value, float) and not hasattr(value, "__index__") and not hasattr(value, "__float__"):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else value
    if not isinstance(stops, list | tuple) or not all(isinstance(s, str) and s for s in stops):
        raise _wrong("stop", value, "it must be a string or a list of strings, none of them empty")
    if len(stops) > MAX_STOPS:
        raise _wrong("stop", value, f"there are {len(stops)} strings, and at most {MAX_STOPS} are possible")
    return tuple(stops)


def _token_ids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list | tuple | set | frozenset):
        raise _wrong("stop_token_ids", value, "it must be a list of token ids")
    ids = [_exact(v, int) for v in value]
    if any(i is None or i < 0 for i in ids):
        raise _wrong("stop_token_ids", value, "each must be a token id, a whole number from 0")
    return tuple(int(i) for i in ids if i is not None)


def _bias(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping):
        raise _wrong("logit_bias", value, "it must be a mapping of token ids to numbers")
    biases: dict[int, float] = {}
    for key, number in value.items():
        token, bias = _exact(key, int), _exact(number, float)
        if token is None or token < 0:
            raise _wrong("logit_bias", value, f"{shown(key)} is no token id, a whole number from 0")
        if bias is None or (abs(bias) > _LARGEST_BIAS and bias != -_INF):
            limit = f"a number from {-_LARGEST_BIAS:g} to {_LARGEST_BIAS:g}, or -inf for never"
            raise _wrong("logit_bias", value, f"{shown(number)} must be {limit}")
        biases[int(token)] = bias
    return biases
