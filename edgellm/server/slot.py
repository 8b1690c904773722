"""The place of the one model that is served."""

from __future__ import annotations

import threading
from collections.abc import Callable

from starlette.exceptions import HTTPException

from edgellm.server.model import ServedModel


class ModelSlot:
    """The place of the one model that is served: empty while it loads."""

    def __init__(self, model: ServedModel | None = None) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._closed = False
        self._dress: Callable[[ServedModel], ServedModel] = lambda model: model

    def dress(self, how: Callable[[ServedModel], ServedModel]) -> None:
        """Have the model, now or when it comes, pass through `how`."""
        with self._lock:
            self._dress = how
            if self._model is not None:
                self._model = how(self._model)

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
                self._model = self._dress(model)
                return
        model.engine.close()

    def close(self) -> None:
        """Close the engine: every request that runs ends at once."""
        with self._lock:
            self._closed = True
        if self._model is not None:
            self._model.engine.close()
