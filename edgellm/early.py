"""While a model is on its way: its first megabytes say what it is, so that what it needs can be begun."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgellm import hub
from edgellm.backends.base import LoadProgress
from edgellm.gguf import GGUFFile, open_gguf

_LOG = logging.getLogger("edgellm")
_LOOKS = (4 << 20, 16 << 20, 32 << 20)  # bytes, after which all metadata may have come: mostly a vocabulary


class Watch:
    """Told by the hub how far a model is, and telling `progress`; `prepare` gets its beginning, once.

    That is a file of the model's size with what has come, and zeros. Whatever goes wrong with it will be said
    of the whole model, when that is here.
    """

    def __init__(
        self, model: str | Path, prepare: Callable[[GGUFFile], None], progress: LoadProgress | None
    ) -> None:
        self._model, self._prepare, self._progress = model, prepare, progress
        self._looks = list(_LOOKS)

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        if self._progress is not None:
            self._progress(description, done_bytes, total_bytes or 0)
        if self._looks and done_bytes >= self._looks[0]:
            self._looks = [n for n in self._looks if n > done_bytes]
            if self._look():
                self._looks = []

    def _look(self) -> bool:
        """Whether enough has come."""
        head = hub.head(str(self._model))
        if head is None:
            return False
        try:
            # Numbers that have not come are zeros, and divided by.
            with tempfile.TemporaryDirectory(prefix="edgellm-") as folder, np.errstate(all="ignore"):
                path = Path(folder) / "beginning.gguf"
                with path.open("wb") as file:
                    file.write(head.data)
                    file.truncate(head.file_bytes)
                with open_gguf(path) as beginning:
                    self._prepare(beginning)
        except Exception:  # whatever it is, the download goes on
            _LOG.debug("nothing can be begun for %s yet", self._model, exc_info=True)
            return False
        return True
