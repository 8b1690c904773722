"""What the server needs of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edgellm.engine.request import Deliver, Request
from edgellm.tokenizers.decoder import TokenBytes


class Cancellable(Protocol):
    """A submitted request."""

    def cancel(self) -> None: ...


class ServedEngine(Protocol):
    """What the server needs of an engine."""

    context_length: int
    max_requests: int  # that may run or wait

    def submit(self, request: Request, deliver: Deliver) -> Cancellable: ...

    def close(self) -> None: ...


class ServedTokenizer(TokenBytes, Protocol):
    """What the server needs of a tokenizer."""

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str: ...


@dataclass(frozen=True)
class ServedModel:
    """A loaded model.

    `chat_prompt` gives a conversation's token ids; `defaults` are the model's own sampling defaults.
    """

    name: str
    engine: ServedEngine
    tokenizer: ServedTokenizer
    chat_prompt: Callable[[list[dict[str, Any]]], list[int]]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))
