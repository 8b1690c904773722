"""The part of a file that has come: NAME.part beside the file, and NAME.part.json, which identifies it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgellm.hub.source import Expected


@dataclass(frozen=True)
class Known:
    """What a partial file is a part of: as the server called it, and as it is expected to be."""

    validator: str | None = None  # for If-Range: a strong ETag, or a date
    total: int | None = None
    sha256: str | None = None

    @property
    def identified(self) -> bool:
        """Whether bytes of another file would be noticed."""
        return self.validator is not None or self.sha256 is not None


class Partial:
    """The part of a file that is here, with what is known of the whole."""

    def __init__(self, target: Path, expected: Expected) -> None:
        self.target, self.expected = target, expected
        self.path = partial_of(target)
        self._note = _note_path(self.path)
        self.known = Known(total=expected.file_bytes, sha256=expected.sha256)
        found = note_of(self.path)
        if found is not None and self._continues(found):
            self.known = found
        else:
            self.remove()
        self.left_over = self.size > 0  # whether bytes that an earlier call left are in it

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def whole(self) -> bool:
        return self.known.total is not None and self.size == self.known.total

    def _continues(self, found: Known) -> bool:
        """Whether what is here can be told to be part of what is expected now."""
        if found.sha256 != self.expected.sha256 or not found.identified:
            return False
        if None not in (found.total, self.expected.file_bytes) and found.total != self.expected.file_bytes:
            return False
        return found.total is None or self.size <= found.total

    def learn(self, **what: Any) -> None:
        """Note what the server says of the file, before any of its bytes is here."""
        self.known = replace(self.known, **what)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._note.write_text(json.dumps(asdict(self.known)))

    def restart(self) -> None:
        self.path.unlink(missing_ok=True)
        self.left_over = False

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def partial_of(target: Path) -> Path:
    """Where the part of a file that has come lies."""
    return target.with_name(target.name + ".part")


def note_of(partial: Path) -> Known | None:
    """What is known of the file that a partial one is a part of; None if nothing is."""
    try:
        known = Known(**json.loads(_note_path(partial).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    texts = isinstance(known.validator, str | None) and isinstance(known.sha256, str | None)
    return known if texts and isinstance(known.total, int | None) else None


def remove_partial(target: Path) -> int:
    """Remove what has come of a file, and give its bytes."""
    path = partial_of(target)
    size = path.stat().st_size if path.exists() else 0
    path.unlink(missing_ok=True)
    _note_path(path).unlink(missing_ok=True)
    return size


def _note_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")
