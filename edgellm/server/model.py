"""What the server needs of a model, and the slot that a model is loaded into."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.exceptions import HTTPException

from edgellm.engine.request import Deliver, Request


class Cancellable(Protocol):
    """A submitted request."""

    def cancel(self) -> None: ...


class ServedEngine(Protocol):
    """What the server needs of an engine."""

    context_length: int

    def submit(self, request: Request, deliver: Deliver) -> Cancellable: ...

    def close(self) -> None: ...


class ServedTokenizer(Protocol):
    """What the server needs of a tokenizer."""

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str: ...

    def token_bytes(self, token_id: int, skip_special: bool = False) -> bytes: ...


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


class ModelSlot:
    """The place of the one model that is served: empty while it loads."""

    def __init__(self, model: ServedModel | None = None) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._closed = False

    @property
    def ready(self) -> bool:
        return self._model is not None

    @property
    def model(self) -> ServedModel:
        """The model; HTTPException 503 while it loads."""
        if self._model is None:
            raise HTTPException(503, "the model is still loading: try again soon", {"Retry-After": "1"})
        return self._model

    def fill(self, model: ServedModel) -> None:
        """Serve this model, or close it where the server is already on its way out."""
        with self._lock:
            if not self._closed:
                self._model = model
                return
        model.engine.close()

    def close(self) -> None:
        """Close the engine: every request that runs ends at once."""
        with self._lock:
            self._closed = True
        if self._model is not None:
            self._model.engine.close()
