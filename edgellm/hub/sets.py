"""Names of the files of a split set: NAME-00001-of-0000N.gguf to NAME-0000N-of-0000N.gguf, side by side."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Part:
    """File `number` (from 1) of the `count` files of a set; `stem` is what all their names begin with."""

    stem: str
    number: int
    count: int

    @property
    def siblings(self) -> list[str]:
        """The names of all files of the set, in order."""
        return [part_name(self.stem, number, self.count) for number in range(1, self.count + 1)]


def part_of(name: str) -> Part | None:
    """Which file of which set a name says it is; None for a whole file."""
    match = _PART.fullmatch(name)
    if match is None:
        return None
    part = Part(match["stem"], int(match["number"]), int(match["count"]))
    return part if 1 <= part.number <= part.count else None


def part_name(stem: str, number: int, count: int) -> str:
    """The name of file `number` (from 1) of `count`."""
    return f"{stem}-{number:05}-of-{count:05}.gguf"


def all_files(first: Path) -> list[Path]:
    """Every file of the model that begins with `first`: the whole set, or that one file."""
    part = part_of(first.name)
    return [first.with_name(name) for name in part.siblings] if part else [first]
