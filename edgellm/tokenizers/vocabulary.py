"""The tokenizer's part of a file's metadata, checked: nothing after this file meets a bad value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgellm.errors import FormatError, UnsupportedError

PREFIX = "tokenizer.ggml."

# Files state more ids (padding, separator, image, fim_pre), some of them outside the vocabulary: nothing
# here reads those.
_IDS = ("bos", "eos", "eot", "eom", "unk", "unknown")


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`, as SentencePiece numbers them."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and what the file says about them. `types` and `scores` are [vocab_size]."""

    model: str
    pre: str
    name: str
    tokens: list[str] = field(repr=False)
    types: NDArray[np.int32] = field(repr=False)
    scores: NDArray[np.float32] | None = field(repr=False)
    merges: list[str] = field(repr=False)
    special_ids: dict[str, int]
    flags: dict[str, bool]
    chat_template: str | None = field(repr=False)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token text -> id; the first of several tokens with one text."""
        return dict(zip(reversed(self.tokens), range(len(self.tokens) - 1, -1, -1), strict=True))

    def of_type(self, *types: TokenType) -> list[int]:
        """Ids of the tokens of these types, in order."""
        found: list[int] = np.flatnonzero(np.isin(self.types, types)).tolist()
        return found


def read_vocabulary(metadata: Mapping[str, Any], kinds: Iterable[str]) -> Vocabulary:
    """Read and check the tokenizer's keys.

    FormatError names the key that is missing or wrong; UnsupportedError if the model is not in `kinds`.
    """
    model = _text(metadata, PREFIX + "model")
    if model is None:
        raise FormatError(f"{PREFIX}model is missing: it names the kind of tokenizer, such as gpt2 or llama")
    if model not in kinds:
        known = ", ".join(sorted(kinds))
        raise UnsupportedError(f"the tokenizer is of kind {model!r} ({PREFIX}model); supported are: {known}")
    tokens = _strings(metadata, "tokens")
    if not tokens:
        raise FormatError(f"{PREFIX}tokens is missing or empty: the file holds no vocabulary")
    scores = _numbers(metadata, "scores", len(tokens), "fiu")
    return Vocabulary(
        model=model,
        pre=_text(metadata, PREFIX + "pre") or "default",
        name=_text(metadata, "general.name") or "",
        tokens=tokens,
        types=_types(metadata, len(tokens)),
        scores=None if scores is None else scores.astype(np.float32),
        merges=_strings(metadata, "merges"),
        special_ids=_special_ids(metadata, len(tokens)),
        flags=_flags(metadata),
        chat_template=_text(metadata, "tokenizer.chat_template"),
    )


def _text(metadata: Mapping[str, Any], key: str) -> str | None:
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{key} is of type {type(value).__name__}, not a string")
    return value


def _strings(metadata: Mapping[str, Any], name: str) -> list[str]:
    """A string array as a list, read whole: the file may be closed afterwards."""
    value = metadata.get(PREFIX + name)
    if value is None:
        return []
    if isinstance(value, str | bytes | np.ndarray) or not hasattr(value, "__len__"):
        raise FormatError(f"{PREFIX}{name} is of type {type(value).__name__}, not an array of strings")
    strings: list[Any] = value.tolist() if hasattr(value, "tolist") else list(value)
    if not all(map(str.__instancecheck__, strings)):
        raise FormatError(f"{PREFIX}{name} holds something that is not a string")
    return strings


def _numbers(metadata: Mapping[str, Any], name: str, length: int, kinds: str) -> NDArray[Any] | None:
    value = metadata.get(PREFIX + name)
    if value is None:
        return None
    array = value if isinstance(value, np.ndarray) else np.empty(0, object)  # lists hold what is no number
    if array.dtype.kind not in kinds or array.ndim != 1:
        raise FormatError(f"{PREFIX}{name} is not an array of numbers of the right type")
    if len(array) != length:
        raise FormatError(f"{PREFIX}{name} has {len(array)} entries, but {PREFIX}tokens has {length}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FormatError(f"{PREFIX}{name} holds a number that is not finite")
    return array


def _types(metadata: Mapping[str, Any], length: int) -> NDArray[np.int32]:
    """A TokenType for each token, or 0, which says nothing."""
    types = _numbers(metadata, "token_type", length, "iu")
    if types is None:
        return np.full(length, TokenType.NORMAL, np.int32)
    wrong = np.flatnonzero((types < 0) | (types > max(TokenType)))
    if len(wrong):
        raise FormatError(
            f"{PREFIX}token_type[{wrong[0]}] is {types[wrong[0]]}; types are 0 to {max(TokenType)}; "
            "the file is damaged, or needs converting again"
        )
    return types.astype(np.int32)


def _special_ids(metadata: Mapping[str, Any], vocab_size: int) -> dict[str, int]:
    """`bos_token_id` and its like: {"bos": 1, ...}, each checked to be in the vocabulary."""
    found = {}
    for name in _IDS:
        key = f"{PREFIX}{name}_token_id"
        value = metadata.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise FormatError(f"{key} is of type {type(value).__name__}, not an integer")
        if not 0 <= value < vocab_size:
            raise FormatError(f"{key} is {value}, but the vocabulary has ids 0 to {vocab_size - 1}")
        found[name] = int(value)
    # The name that converters settled on for "unk".
    if "unknown" in found:
        found.setdefault("unk", found["unknown"])
    return found


def _flags(metadata: Mapping[str, Any]) -> dict[str, bool]:
    found = {}
    for name in ("add_bos_token", "add_eos_token", "add_space_prefix"):
        value = metadata.get(PREFIX + name)
        if value is None:
            continue
        if not isinstance(value, bool | np.bool_):
            raise FormatError(f"{PREFIX}{name} is of type {type(value).__name__}, not a boolean")
        found[name] = bool(value)
    return found
