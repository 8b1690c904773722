"""From what a person calls a model to a file that is there."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.config import load_config
from edgellm.errors import DownloadError, EdgeLLMError, ModelNotFoundError, UsageError
from edgellm.hub.checks import FULL, DiskFullError, free_bytes, mebibytes
from edgellm.hub.entries import catalogue, nearest
from edgellm.hub.huggingface import RepositorySource
from edgellm.hub.incoming import folder_of, incoming, place
from edgellm.hub.source import Expected, Head, Progress, Source, silent
from edgellm.hub.store import Removed, discard, find, installed, target_of

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
    # Names of the store may have folders; a path that is there goes before them.
    if _is_path(name) and (os.path.lexists(name) or not _is_installed(name)):
        return _existing(name)
    wanted, expected = _known(name, ", and a path to a .gguf or hf.co/USER/REPO:QUANT works too")
    path = find(wanted, expected)
    if path is not None:
        return path
    if not download:
        raise ModelNotFoundError(f"{wanted} is not on this machine yet: `edgellm pull {wanted}` fetches it")
    return pull(wanted, progress)


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a model by its name, unless it is there, and return its path in the store: of a split set, that
    of its first file. What an earlier call had fetched before it was interrupted is not fetched again.

    Raises DownloadError, which names every source that was tried and why it failed; and as `resolve`.
    """
    wanted, expected = _known(name)
    path = find(wanted, expected)
    if path is not None:
        return path
    target, report = target_of(wanted), progress or silent
    with _on_disk(wanted, target), incoming(target, report) as folder:
        # Another process may have pulled it while this one waited for its turn.
        path = find(wanted, expected)
        if path is None:
            path = place(_first(wanted, expected, folder, report), target, folder)
        return path


def head(model: str) -> Head | None:
    """The beginning of a model that is being fetched, as far as it has come; None if there is none yet."""
    wanted, _ = _known(model)
    folder = folder_of(target_of(wanted))
    heads = (source.head(_room(folder, source)) for source in _sources(wanted))
    return next((found for found in heads if found is not None), None)


def remove(name: str) -> Removed:
    """Take a pulled model out of the store, and what has come of one whose download was interrupted.

    Raises ModelNotFoundError if it is not in it, EdgeLLMError while another process fetches it.
    """
    wanted, _ = _known(name)
    try:
        return discard(wanted)
    except OSError as error:
        folder = target_of(wanted).parent
        raise EdgeLLMError(
            f"{wanted} cannot be removed from {folder} ({error.strerror or error}): make that writable"
        ) from error


def recommended_sampling(model: str | os.PathLike[str]) -> dict[str, float]:
    """The sampling fields that are recommended for a catalogue model; of others nothing is known."""
    entry = catalogue().get(model.lower()) if isinstance(model, str) else None
    return dict(entry.sampling) if entry else {}


def _known(name: str, also: str = ", and hf.co/USER/REPO:QUANT works too") -> tuple[str, Expected]:
    """The name in its one spelling, and what is known of its file.

    Raises ModelNotFoundError, which says what would have done `also`, and UsageError.
    """
    if name.startswith(_HUB):
        match = _HUB_NAME.fullmatch(name)
        if match is None:
            raise UsageError(f"{name!r} is not of the form hf.co/USER/REPO or hf.co/USER/REPO:QUANT", "model")
        repo, quant = match.groups()
        return f"{_HUB}{repo}" + (f":{quant.upper()}" if quant else ""), Expected()
    known = catalogue()
    if name.lower() in known:
        return name.lower(), known[name.lower()].expected
    if _is_installed(name):  # somebody put it there
        return name, Expected()
    if _is_path(name):
        raise ModelNotFoundError(
            f"{name!r} is a path, and only what `edgellm list` shows can be pulled and removed; "
            f"`edgellm run {name}` takes the file where it lies"
        )
    near = nearest(name.lower(), list(known))
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    raise ModelNotFoundError(
        f"no model is called {name!r}{meant}; `edgellm list` shows the names there are{also}"
    )


def _sources(name: str) -> tuple[Source, ...]:
    if name.startswith(_HUB):
        repo, _, quant = name.removeprefix(_HUB).partition(":")
        return (RepositorySource(repo, quant or None),)
    entry = catalogue().get(name)
    return entry.sources if entry else ()


def _first(name: str, expected: Expected, folder: Path, progress: Progress) -> tuple[Path, ...]:
    """The files from the first source that delivers them."""
    reasons = []
    for source in _sources(name):
        room = _room(folder, source)
        room.mkdir(exist_ok=True)
        try:
            return source.fetch(room, expected, progress)
        except DownloadError as error:
            reasons.append(f"{source.label}: {error}")
    kept = (
        f" What has come is kept: `edgellm pull {name}` goes on from there." if _holds_files(folder) else ""
    )
    raise DownloadError(f"{name} could not be fetched: {'; '.join(reasons)}.{kept}")


def _room(folder: Path, source: Source) -> Path:
    """A source's own part of the folder that a model is fetched into."""
    return folder / re.sub(r"[^\w.-]+", "-", source.label)


def _holds_files(folder: Path) -> bool:
    """Whether there is something to go on from: a link to a partial file may lead to none."""
    return any(path.is_file() for path in folder.rglob("*"))


def _is_path(name: str) -> bool:
    if name.startswith(_HUB):
        return False
    return name.lower().endswith(".gguf") or os.sep in name or "/" in name


def _is_installed(name: str) -> bool:
    return any(name == model.name for model in installed())


def _existing(name: str) -> Path:
    try:
        path = Path(name).expanduser()
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path
        problem = "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte
        problem = "does not exist"
    except RuntimeError:
        problem = "begins with a home folder that is not there"
    except OSError as error:
        problem = f"cannot be opened ({error.strerror or error})"
    raise ModelNotFoundError(
        f"{name} {problem}; a model is a .gguf file, or a name that `edgellm list` shows"
    )


@contextmanager
def _on_disk(name: str, target: Path) -> Iterator[None]:
    """Say in a sentence what this machine's disk refuses."""
    try:
        yield
    except DiskFullError as error:
        raise DownloadError(_full(name, error.folder, f"{mebibytes(error.needed)} more")) from error
    except BrokenPipeError:  # no disk's: whoever is told of the progress has gone
        raise
    except OSError as error:
        folder = Path(error.filename or target.parent)
        if error.errno in FULL:
            raise DownloadError(_full(name, folder, "more")) from error
        raise DownloadError(
            f"{folder} cannot be written ({error.strerror or error}), so {name} cannot be fetched: "
            f"set {_variable(folder)} to a folder that can"
        ) from error


def _full(name: str, folder: Path, needed: str) -> str:
    models = load_config().models
    shown = models if folder.is_relative_to(models) else folder
    return (
        f"the disk is full: {shown} has {mebibytes(free_bytes(folder))} free, and {name} needs {needed}. "
        f"Make room and pull again, which goes on from what is here; or set {_variable(folder)} to a folder "
        "on another disk"
    )


def _variable(folder: Path) -> str:
    """The variable that says where `folder` is: the store's, or that of the Hugging Face library's cache."""
    return "EDGELLM_HOME" if folder.is_relative_to(load_config().home) else "HF_HUB_CACHE"
