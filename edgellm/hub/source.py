"""What every source of models has in common: what it is asked for, and how it tells how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol


class Progress(Protocol):
    """Told, several times a second, how far a download is."""

    def __call__(self, description: str, done_bytes: int, total_bytes: int | None) -> None:
        """`total_bytes` is None where nobody knows it."""


def silent(description: str, done_bytes: int, total_bytes: int | None) -> None:
    """The Progress of someone who does not want to know."""


@dataclass(frozen=True)
class Expected:
    """What is known beforehand of the file that a source is to deliver."""

    sha256: str | None = None
    file_bytes: int | None = None


class Head(NamedTuple):
    """The first bytes of a file, and how many it will have."""

    data: bytes
    file_bytes: int


class Source(Protocol):
    """A place that a model can come from."""

    @property
    def label(self) -> str:
        """How a person calls this place, for messages."""

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> tuple[Path, ...]:
        """Deliver the file, or all files of a split set in order, whole and checked; either inside `folder`
        or in a cache of the source's own.

        `folder` is private to this call, and on the disk where the model will live. It may hold what an
        earlier call left when it was interrupted; what is left in it can be continued from, and is kept until
        the model is here or removed. A partial file that lies elsewhere has a link in it, ending in `.part`.
        Raises DownloadError with one sentence that says why, OSError for what this machine's disk refuses.
        """

    def head(self, folder: Path) -> Head | None:
        """What has come of the model, or of the first file of a set, since `fetch` was called with `folder`;
        None where that is nothing, or nobody can tell.
        """
