"""From what a person calls a model to a file that is there."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import DownloadError, ModelNotFoundError, UsageError
from edgellm.hub.entries import catalogue, nearest
from edgellm.hub.huggingface import RepositorySource
from edgellm.hub.source import Expected, Progress, Source, silent
from edgellm.hub.store import Removed, discard, find, incoming, place, target_of

_HUB = "hf.co/"
_HUB_NAME = re.compile(r"hf\.co/([\w.-]+/[\w.-]+)(?::([\w.-]+))?")


def resolve(model: str | os.PathLike[str], progress: Progress | None = None, download: bool = True) -> Path:
    """The file of a MODEL: a catalogue name, a path to a .gguf, or `hf.co/USER/REPO[:QUANT]`.

    What is not there yet is pulled, unless `download` is False. Raises ModelNotFoundError, UsageError,
    UnsupportedError, DownloadError.
    """
    if isinstance(model, os.PathLike):
        return _existing(os.fspath(model))
    name = model
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"a model is named by a text, not by {name!r}; `edgellm list` shows the names", "model"
        )
    if _is_path(name):
        return _existing(name)
    wanted, expected = _known(name)
    path = find(wanted, expected)
    if path is not None:
        return path
    if not download:
        raise ModelNotFoundError(f"{wanted} is not on this machine yet: `edgellm pull {wanted}` fetches it")
    return pull(wanted, progress)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model by its name, unless it is there, and return its path in the store.

    Raises DownloadError, which names every source that was tried and why it failed; and as `resolve`.
    """
    wanted, expected = _known(name)
    target = target_of(wanted)
    with _disk(target), incoming(target) as folder:
        # Another process may have pulled it while this one waited for its turn.
        path = find(wanted, expected)
        if path is None:
            sources = _sources(wanted)
            place(_first(wanted, sources, expected, folder, progress or silent), target, folder)
        return target


def remove(name: str) -> Removed:
    """Take a pulled model out of the store. Raises ModelNotFoundError if it is not in it."""
    wanted, _ = _known(name)
    with _disk(target_of(wanted)):
        return discard(wanted)


def _known(name: str) -> tuple[str, Expected]:
    """The name in its one spelling, and what is known of its file. Raises ModelNotFoundError."""
    if name.startswith(_HUB):
        match = _HUB_NAME.fullmatch(name)
        if match is None:
            raise UsageError(f"{name!r} is not of the form hf.co/USER/REPO or hf.co/USER/REPO:QUANT", "model")
        repo, quant = match.groups()
        return f"{_HUB}{repo}" + (f":{quant.upper()}" if quant else ""), Expected()
    known = catalogue()
    if name.lower() in known:
        return name.lower(), known[name.lower()].expected
    near = nearest(name.lower(), list(known))
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ModelNotFoundError(
        f"no model is called {name!r}{meant}; `edgellm list` shows the names there are, "
        "and a path to a .gguf or hf.co/USER/REPO:QUANT works too"
    )


def _sources(name: str) -> tuple[Source, ...]:
    if name.startswith(_HUB):
        repo, _, quant = name.removeprefix(_HUB).partition(":")
        return (RepositorySource(repo, quant or None),)
    return catalogue()[name].sources


def _first(
    name: str, sources: tuple[Source, ...], expected: Expected, folder: Path, progress: Progress
) -> Path:
    """The file from the first source that delivers it."""
    reasons = []
    for number, source in enumerate(sources):
        room = folder / str(number)
        room.mkdir()
        try:
            return source.fetch(room, expected, progress)
        except DownloadError as error:
            reasons.append(f"{source.label}: {error}")
            shutil.rmtree(room, ignore_errors=True)
    raise DownloadError(f"{name} could not be fetched: " + "; ".join(reasons) + ".")


def _is_path(name: str) -> bool:
    if name.startswith(_HUB):
        return False
    return name.lower().endswith(".gguf") or os.sep in name or "/" in name


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    problem = "is a folder" if path.is_dir() else "does not exist"
    raise ModelNotFoundError(
        f"{name} {problem}; a model is a .gguf file, or a name that `edgellm list` shows"
    )


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    """Say in a sentence what this machine's disk refuses."""
    try:
        yield
    except OSError as error:
        folder = target.parent
        where = f"{error.filename or folder}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"the disk is full ({error.strerror}; at {where}): make room, or set EDGELLM_HOME "
                "to a folder on another disk"
            ) from error
        raise DownloadError(
            f"{where} cannot be written ({error.strerror or error}): set EDGELLM_HOME to a folder that can"
        ) from error
