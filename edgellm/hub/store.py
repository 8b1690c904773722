"""The model store: a folder in which a file that has a name is whole.

A name is a path: `smollm2:135m` lies at `smollm2/135m.gguf`, `hf.co/user/repo:Q8_0` at
`hf.co/user/repo/Q8_0.gguf`; a split set of that name at `hf.co/user/repo/Q8_0-00001-of-00003.gguf` and so on.
Whatever is under way lies beside its target in a folder whose name begins with a dot (`incoming.py`), and
gets its name by one atomic rename. A file that lives in a cache of its source's own is a link.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgellm.config import load_config
from edgellm.errors import EdgeLLMError, ModelNotFoundError
from edgellm.hub.incoming import folder_of
from edgellm.hub.locks import lock_of, locked
from edgellm.hub.partial import remove_partial
from edgellm.hub.sets import all_files, part_of
from edgellm.hub.source import Expected


@dataclass(frozen=True)
class Installed:
    """A model of the store: its name, where it (or the first file of its set) lies, and its bytes in all."""

    name: str
    path: Path
    file_bytes: int


@dataclass(frozen=True)
class Removed:
    """What was removed, how many bytes that freed, and the cached files that were left where they are."""

    name: str
    freed_bytes: int
    kept: tuple[Path, ...] = ()


def target_of(name: str) -> Path:
    """Where the model of this name lies, or will, if it is one file."""
    base, _, tag = name.partition(":")
    relative = f"{base}/{tag}.gguf" if tag else f"{base}.gguf"
    return load_config().models / relative


def name_of(target: Path) -> str:
    """The name of the model at this path of the store."""
    *folders, stem = target.relative_to(load_config().models).with_suffix("").parts
    part = part_of(target.name)
    stem = part.stem if part else stem
    untagged = not folders or (folders[0] == "hf.co" and len(folders) < 3)
    return "/".join([*folders, stem]) if untagged else "/".join(folders) + ":" + stem


def installed() -> list[Installed]:
    """Every model of the store, by name."""
    root = load_config().models
    found = [path for path in sorted(root.rglob("*.gguf")) if _is_named(path.relative_to(root))]
    sizes = ((path, _size(path)) for path in found)
    return [Installed(name_of(path), path, size) for path, size in sizes if size is not None]


def find(name: str, expected: Expected) -> Path | None:
    """The first file of this name, unless it is not there or cannot be the one that the catalogue means."""
    target = target_of(name)
    for path in [target, *_set_files(target)]:
        size = _size(path)
        if size is not None and expected.file_bytes in (None, size):
            return path
    return None


def file_bytes(first: Path) -> int:
    """The size of the model that begins with this file."""
    return sum(path.stat().st_size for path in all_files(first))


def discard(name: str) -> Removed:
    """Take a model out of the store, or what has come of it; another program's cache keeps what it has.

    Raises ModelNotFoundError if nothing of it is there, EdgeLLMError while another process fetches it.
    """
    target = target_of(name)
    folders = [folder_of(target), *target.parent.glob(f".{target.name}.*.part")]
    files = [path for path in [target, *_set_files(target)] if path.is_symlink() or path.is_file()]
    if not files and not any(folder.exists() for folder in folders):
        lock_of(target).unlink(missing_ok=True)
        names = ", ".join(model.name for model in installed()) or "nothing"
        raise ModelNotFoundError(f"{name!r} is not in the model store, which holds: {names}")

    def busy() -> None:
        raise EdgeLLMError(f"another process is fetching {name} now: stop that first")

    with locked(target, busy):
        freed = sum(path.stat().st_size for path in files if not path.is_symlink())
        kept = tuple(path.resolve() for path in files if path.is_symlink() and path.exists())
        for path in files:
            path.unlink()
        return Removed(name, freed + sum(_clear(folder) for folder in folders), kept)


def _clear(folder: Path) -> int:
    """Remove what has come of a model, the partial files that are linked to as well, and give its bytes."""
    freed = 0
    for path in _below(folder):
        if path.is_symlink() and path.suffix == ".part":
            target = path.readlink()
            freed += remove_partial(target.with_name(target.name.removesuffix(".part")))
        elif not path.is_symlink():
            freed += path.stat().st_size
    shutil.rmtree(folder, ignore_errors=True)
    return freed


def _below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _set_files(target: Path) -> list[Path]:
    """The files of split sets that have the name of `target`, first files first."""
    found = sorted(target.parent.glob(f"{target.stem}-?????-of-?????.gguf"))
    return [path for path in found if (part := part_of(path.name)) and part.stem == target.stem]


def _is_whole(path: Path) -> bool:
    """Whether a model begins with this file, and all of it is here."""
    part = part_of(path.name)
    return (part is None or part.number == 1) and all(file.is_file() for file in all_files(path))


def _size(path: Path) -> int | None:
    """The bytes of the model that begins with this file; None where none does, or it is removed meanwhile."""
    with suppress(FileNotFoundError):
        return file_bytes(path) if _is_whole(path) else None
    return None


def _is_named(relative: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts)
