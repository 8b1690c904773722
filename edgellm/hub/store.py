"""The model store: a folder in which a file that has a name is whole.

A name is a path: `smollm2:135m` lies at `smollm2/135m.gguf`, `hf.co/user/repo:Q8_0` at
`hf.co/user/repo/Q8_0.gguf`. Whatever is under way lies beside its target in a folder whose name begins with
a dot, and gets its name by one atomic rename. A file that lives in a cache of its source's own is a link.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgellm.config import load_config
from edgellm.errors import DownloadError, ModelNotFoundError
from edgellm.hub.source import Expected, Progress

_CHUNK = 1 << 20
_DAY = 86400.0


@dataclass(frozen=True)
class Installed:
    """A model of the store: its name, where it lies, and how many bytes it has."""

    name: str
    path: Path
    file_bytes: int


@dataclass(frozen=True)
class Removed:
    """What was removed, how many bytes that freed, and the cached file that was left where it is."""

    name: str
    freed_bytes: int
    kept: Path | None


def target_of(name: str) -> Path:
    """Where the model of this name lies, or will."""
    base, _, tag = name.partition(":")
    relative = f"{base}/{tag}.gguf" if tag else f"{base}.gguf"
    return load_config().models / relative


def name_of(target: Path) -> str:
    """The name of the model at this path of the store."""
    *folders, stem = target.relative_to(load_config().models).with_suffix("").parts
    untagged = not folders or (folders[0] == "hf.co" and len(folders) < 3)
    return "/".join([*folders, stem]) if untagged else "/".join(folders) + ":" + stem


def installed() -> list[Installed]:
    """Every model of the store, by name."""
    root = load_config().models
    found = [path for path in sorted(root.rglob("*.gguf")) if _is_named(path.relative_to(root))]
    return [Installed(name_of(path), path, path.stat().st_size) for path in found if path.is_file()]


def find(name: str, expected: Expected) -> Path | None:
    """The file of this name, unless it is not there or cannot be the one that the catalogue means."""
    path = target_of(name)
    if not path.is_file():
        return None
    right_size = expected.file_bytes in (None, path.stat().st_size)
    return path if right_size else None


def discard(name: str) -> Removed:
    """Take a model out of the store; what lies in another program's cache as well stays there."""
    path = target_of(name)
    if not path.is_symlink() and not path.is_file():
        names = ", ".join(model.name for model in installed()) or "nothing"
        raise ModelNotFoundError(f"{name!r} is not in the model store, which holds: {names}")
    kept = path.resolve() if path.is_symlink() and path.exists() else None
    freed = 0 if path.is_symlink() else path.stat().st_size
    path.unlink()
    return Removed(name, freed, kept)


@contextmanager
def incoming(target: Path) -> Iterator[Path]:
    """A private folder beside `target` to fetch into; gone afterwards, whatever happens.

    One process at a time fetches a target, where the system has locks. What an earlier one left when it
    was killed is cleaned up first.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target) as alone:
        _clean(target, older_than_s=0.0 if alone else _DAY)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def place(path: Path, target: Path, folder: Path) -> None:
    """Give a fetched file its name: moved out of `folder`, or linked to the cache that it lives in."""
    if not path.is_relative_to(folder):
        path = _linked(path, folder / "link")
    os.replace(path, target)


def require_room(folder: Path, needed: int) -> None:
    """Raise ENOSPC before a download that cannot end well; `folder` need not be there yet."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        message = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, message, str(folder))


def copy_checked(
    source: IO[bytes], path: Path, expected: Expected, progress: Progress, description: str
) -> None:
    """Write a stream to a new file, checking it on the way. Raises DownloadError if it is another file."""
    digest = hashlib.sha256()
    done = 0
    with path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            done += len(chunk)
            if expected.file_bytes is not None and done > expected.file_bytes:
                break
            digest.update(chunk)
            file.write(chunk)
            progress(description, done, expected.file_bytes)
        file.flush()
        os.fsync(file.fileno())
    _compare(digest.hexdigest(), done, expected)


def check(path: Path, expected: Expected, progress: Progress, description: str) -> None:
    """Read a file that is already there and check it. Raises DownloadError if it is another file."""
    total = path.stat().st_size
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            done += len(chunk)
            digest.update(chunk)
            progress(description, done, total)
    _compare(digest.hexdigest(), done, expected)


def _compare(sha256: str, done: int, expected: Expected) -> None:
    if expected.file_bytes not in (None, done):
        raise DownloadError(f"the file should have {expected.file_bytes} bytes, but has another size")
    if expected.sha256 not in (None, sha256):
        raise DownloadError(f"the file's sha256 is {sha256}, but {expected.sha256} was expected")


def _linked(path: Path, link: Path) -> Path:
    """A link to `path`, or a copy where links are not allowed."""
    try:
        link.symlink_to(path.absolute())
    except (OSError, NotImplementedError):
        shutil.copyfile(path, link)
    return link


def _is_named(relative: Path) -> bool:
    return not any(part.startswith(".") for part in relative.parts)


def _clean(target: Path, older_than_s: float) -> None:
    now = time.time()
    for stale in target.parent.glob(f".{target.name}.*.part"):
        if now - stale.stat().st_mtime >= older_than_s:
            shutil.rmtree(stale, ignore_errors=True)


@contextmanager
def _locked(target: Path) -> Iterator[bool]:
    """Hold the target's lock; yields False where the system, or the file system, has none."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with (target.parent / f".{target.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError:
            alone = False
        yield alone
