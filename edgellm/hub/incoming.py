"""Models on their way in: a folder for each, which outlives whoever was fetching."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.hub.locks import locked
from edgellm.hub.sets import part_name
from edgellm.hub.source import Progress

_DAY = 86400.0


def folder_of(target: Path) -> Path:
    """The folder in which `target` is fetched."""
    return target.with_name(f".{target.name}.part")


@contextmanager
def incoming(target: Path, progress: Progress) -> Iterator[Path]:
    """A folder beside `target` to fetch into, for one process at a time; the others wait.

    Gone when all went well. After a failure it keeps the files that are in it, for the next call; empty
    folders go.
    """
    target.parent.mkdir(parents=True, exist_ok=True)

    def waiting() -> None:
        progress(f"waiting for another process that fetches {target.stem}", 0, None)

    with locked(target, waiting) as alone:
        folder = _open(target, alone)
        try:
            yield folder
        except BaseException:
            _prune(folder) if alone else shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def place(paths: tuple[Path, ...], target: Path, folder: Path) -> Path:
    """Give fetched files their names: moved out of `folder`, or linked to the cache that they live in.

    The first file of a set comes last, because it is what the set is found by. Gives the first file's path.
    """
    count = len(paths)
    names = [target]
    if count > 1:
        names = [target.with_name(part_name(target.stem, i + 1, count)) for i in range(count)]
    for path, name in reversed(list(zip(paths, names, strict=True))):
        os.replace(path if path.is_relative_to(folder) else _linked(path, folder / "link"), name)
    return names[0]


def _open(target: Path, alone: bool) -> Path:
    """The folder to fetch into. Where the system has no locks, it is private, and nothing continues."""
    if alone:
        folder = folder_of(target)
        folder.mkdir(exist_ok=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    for other in target.parent.glob(f".{target.name}.*.part"):
        if other != folder and time.time() - other.stat().st_mtime >= _DAY:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def _prune(folder: Path) -> None:
    """Remove the folders in which nothing lies."""
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(parent)
        except OSError:
            continue


def _linked(path: Path, link: Path) -> Path:
    """A link to `path`, or a copy where links are not allowed."""
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(path.absolute())
    except (OSError, NotImplementedError):
        shutil.copyfile(path, link)
    return link
