"""Which files of a Hugging Face repository are the model that somebody means."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from edgellm.errors import ModelNotFoundError, UsageError
from edgellm.hub.sets import part_of

PREFERRED_QUANTS = ("Q4_K_M", "Q4_0", "Q8_0")

_QUANT = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|T?Q\d_\d|BF16|F16|F32|(?:MX|NV)FP4\w*))$", re.IGNORECASE
)


@dataclass
class Candidate:
    """A model of a repository: one file, or the files of a split set that are there, by their numbers."""

    count: int
    parts: dict[int, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.parts[min(self.parts)]

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(self.parts[number] for number in sorted(self.parts))

    @property
    def quant(self) -> str:
        return quant_of(self.name)

    @property
    def missing(self) -> list[str]:
        """The names of those files of its set that the repository does not have."""
        part = part_of(PurePosixPath(self.name).name)
        names = part.siblings if part else []
        return [name for number, name in enumerate(names, 1) if number not in self.parts]


def choose(repo: str, names: Iterable[str], quant: str | None) -> tuple[str, ...]:
    """The file with the quant type asked for, or the best default; of a split set, all its files in order.

    Whole files are preferred to sets. Raises ModelNotFoundError when nothing fits or files of the set are
    missing, UsageError when there is no evident default.
    """
    found = _candidates(repo, list(names))
    chosen = _named(repo, found, quant) if quant else _default(repo, found)
    if chosen.missing:
        raise ModelNotFoundError(
            f"{repo} has {len(chosen.parts)} of the {chosen.count} files of a split set; missing are: "
            f"{_listed(chosen.missing)}"
        )
    return chosen.files


def quant_of(name: str) -> str:
    """The quant type in a file's name, in capitals; empty if there is none."""
    path = PurePosixPath(name)
    part = part_of(path.name)
    match = _QUANT.search(part.stem if part else path.stem)
    return match.group(1).upper() if match else ""


def _candidates(repo: str, names: list[str]) -> list[Candidate]:
    """The models of a repository: whole ones, whole sets, broken sets; of each, the shortest path first."""
    files = [name for name in names if name.lower().endswith(".gguf")]
    models = [name for name in files if not _goes_beside(name)]
    if not models:
        only = f": {_listed(files)} go beside one (image projectors, importance matrices)" if files else ""
        raise ModelNotFoundError(f"the Hugging Face repository {repo} holds no .gguf model{only}")
    found: dict[tuple[str, str, int], Candidate] = {}
    for name in models:
        path = PurePosixPath(name)
        part = part_of(path.name)
        number, count = (part.number, part.count) if part else (1, 1)
        stem = part.stem if part else path.name
        found.setdefault((str(path.parent), stem, count), Candidate(count)).parts[number] = name
    return sorted(found.values(), key=lambda c: (bool(c.missing), c.count > 1, len(c.name), c.name))


def _goes_beside(name: str) -> bool:
    """Whether a .gguf is no model: an image projector, or an importance matrix (not what one helped make)."""
    lower = name.lower()
    if "mmproj" in lower or PurePosixPath(lower).name.startswith("imatrix"):
        return True
    return "imatrix" in lower and not quant_of(name)


def _named(repo: str, found: list[Candidate], quant: str) -> Candidate:
    for candidate in found:
        if quant.upper() in (candidate.quant, candidate.quant.removeprefix("UD-")):
            return candidate
    raise ModelNotFoundError(f"{repo} has no {quant}; it has: {_quants(found)}")


def _default(repo: str, found: list[Candidate]) -> Candidate:
    for sets in (False, True):
        for quant in PREFERRED_QUANTS:
            for candidate in found:
                if candidate.quant == quant and (candidate.count > 1) == sets and not candidate.missing:
                    return candidate
    if len(found) == 1:
        return found[0]
    raise UsageError(
        f"{repo} holds several models: choose one, hf.co/{repo}:QUANT, of {_quants(found)}", "model"
    )


def _quants(found: list[Candidate]) -> str:
    return ", ".join(sorted({candidate.quant or candidate.name for candidate in found}))


def _listed(names: list[str], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
