"""Models of a Hugging Face repository, kept in its library's own cache (HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN).

What another program has already fetched is not fetched again, and what comes is there for others. The
library begins anew after an interruption, so the bytes are fetched by `transfer.py`, into the place that the
cache has for them: `blobs/ETAG`, where a large file's ETag is its sha256
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache). Both are imported where they are used: they
take a while, and most starts do not need them.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from edgellm.errors import DownloadError
from edgellm.hub.arriving import head_of
from edgellm.hub.checks import check, require_room
from edgellm.hub.locks import locked
from edgellm.hub.partial import partial_of
from edgellm.hub.repository import choose
from edgellm.hub.sets import part_of
from edgellm.hub.source import Expected, Head, Progress

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HASH = re.compile(r"[0-9a-f]{40,64}")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_TIMEOUT_S = 10


@dataclass(frozen=True)
class HuggingFaceSource:
    """`file` of the repository `repo` (USER/REPO), on its main branch; of a split set, the first file."""

    repo: str
    file: str

    @property
    def label(self) -> str:
        """The repository, as its user would say it."""
        return f"the Hugging Face repository {self.repo}"

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> tuple[Path, ...]:
        """The files in the library's cache, downloaded if they are not there, and checked."""
        part = part_of(PurePosixPath(self.file).name)
        parent = PurePosixPath(self.file).parent
        names = [str(parent / name) for name in part.siblings] if part else [self.file]
        return _fetch_all(self.repo, names, folder, expected, progress)

    def head(self, folder: Path) -> Head | None:
        return _head(folder)


@dataclass(frozen=True)
class RepositorySource:
    """Whatever model of the repository `repo` has the quant type `quant`, or is the best default."""

    repo: str
    quant: str | None

    @property
    def label(self) -> str:
        """The repository, as its user would say it."""
        return f"the Hugging Face repository {self.repo}"

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> tuple[Path, ...]:
        """Choose the files and fetch them; raises as `choose_files`, and as every source."""
        names = list(choose_files(self.repo, self.quant))
        return _fetch_all(self.repo, names, folder, expected, progress)

    def head(self, folder: Path) -> Head | None:
        return _head(folder)


def _head(folder: Path) -> Head | None:
    """What is in the partial file to which the first link leads."""
    links = sorted(folder.glob("*.part"))
    return head_of(links[0].resolve()) if links else None


def choose_files(repo: str, quant: str | None) -> tuple[str, ...]:
    """As `repository.choose`, of what the hub lists. Raises DownloadError when it cannot be listed."""
    from huggingface_hub import HfApi

    with _reasons(repo):
        siblings = HfApi().model_info(repo, timeout=_TIMEOUT_S).siblings
    return choose(repo, [sibling.rfilename for sibling in siblings or []], quant)


def _fetch_all(
    repo: str, names: list[str], folder: Path, expected: Expected, progress: Progress
) -> tuple[Path, ...]:
    from huggingface_hub import constants

    files = [_File(repo, name, folder, progress) for name in names]
    require_room(Path(constants.HF_HUB_CACHE), sum(file.missing_bytes for file in files))
    paths = tuple(file.fetch() for file in files)
    if len(paths) == 1 and expected.sha256 not in (None, _published(paths[0])):
        check(paths[0], expected, progress, f"checking {paths[0].name}")
    return paths


class _File:
    """One file of a repository, on its way into the library's cache. Asks the hub about it when made."""

    def __init__(self, repo: str, name: str, folder: Path, progress: Progress) -> None:
        from huggingface_hub import hf_hub_url, try_to_load_from_cache

        self._repo, self._name, self._folder, self._progress = repo, name, folder, progress
        self._shown = PurePosixPath(name).name
        cached = try_to_load_from_cache(repo, name)
        self._cached = Path(cached) if isinstance(cached, str) else None
        self._size: int | None = None
        self._blob: Path | None = None
        self._url = hf_hub_url(repo, name)
        if self._cached is None:
            self._ask()

    def _ask(self) -> None:
        from huggingface_hub import get_hf_file_metadata

        with _reasons(self._name):
            remote = get_hf_file_metadata(self._url, timeout=_TIMEOUT_S)
        self._size, self._blob = remote.size, _blob_of(self._repo, remote.etag, remote.size)

    @property
    def missing_bytes(self) -> int:
        """How much of it is still to come."""
        if self._size is None or (self._blob is not None and self._blob.exists()):
            return 0
        part = partial_of(self._blob) if self._blob is not None else None
        return max(self._size - (part.stat().st_size if part is not None and part.exists() else 0), 0)

    def fetch(self) -> Path:
        """Its path in the cache, whole and checked."""
        if self._cached is not None:
            if self._is_sound(self._cached):
                return self._cached
            try:
                self._ask()
            except DownloadError as error:
                raise DownloadError(f"the file in its cache was damaged, and is removed; {error}") from error
        if self._blob is not None:
            self._fetch_blob(self._blob)
        return self._enter()

    def _is_sound(self, path: Path) -> bool:
        """Whether a cached file is the published one; if not, it is removed, or it would be found again."""
        published = _published(path)
        if published is None:
            return True
        try:
            check(path, Expected(published), self._progress, f"checking {path.name}")
        except DownloadError:
            (path.parent / path.readlink()).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            return False
        return True

    def _fetch_blob(self, blob: Path) -> None:
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        from edgellm.hub.transfer import Remote, download

        blob.parent.mkdir(parents=True, exist_ok=True)
        waiting = partial(self._progress, f"waiting for another process that fetches {self._shown}", 0, None)
        with locked(blob, waiting) as alone:
            if blob.exists() or not alone:
                return
            self._leave_link(partial_of(blob))
            sha256 = blob.name if _SHA256.fullmatch(blob.name) else None
            remote = Remote(self._url, self._shown, build_hf_headers())
            download(remote, blob, Expected(sha256, self._size), self._progress)

    def _leave_link(self, part: Path) -> None:
        """Let the store know where the partial file lies, so that removing the model removes it."""
        link = self._folder / f"{self._shown}.part"
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(part.absolute())
        except (OSError, NotImplementedError):
            return

    def _enter(self) -> Path:
        """Have the library enter the file in its cache, and download it if its bytes are not there."""
        from huggingface_hub import hf_hub_download

        bar = _bar(self._progress, f"downloading {self._shown}")
        with _reasons(self._name):
            return Path(hf_hub_download(self._repo, self._name, tqdm_class=bar))


def _blob_of(repo: str, etag: str | None, size: int | None) -> Path | None:
    """Where the cache keeps the bytes of a file; None for those that only the library can fetch."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if etag is None or size is None or not _HASH.fullmatch(etag):
        return None
    if size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return None
    folder = repo_folder_name(repo_id=repo, repo_type="model")
    return Path(constants.HF_HUB_CACHE) / folder / "blobs" / etag


def _published(path: Path) -> str | None:
    """The sha256 that the repository gives for a cached file: the name of the blob that it links to."""
    blob = path.readlink().name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


@contextmanager
def _reasons(name: str) -> Iterator[None]:
    """Turn what the library raises into one sentence; what the disk refuses stays an OSError."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise DownloadError(
            "it asks its users to accept a licence: accept it on its page, then set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DownloadError("there is no public repository of that name") from error
    except errors.EntryNotFoundError as error:
        raise DownloadError(f"it does not have that file any more: {name}") from error
    except errors.HFValidationError as error:
        raise DownloadError("that is not the name of a repository (USER/REPO)") from error
    # The library's network errors have no common root, and differ from version to version.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK:
            raise
        raise DownloadError(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    said = (lines[0] if lines else kind).rstrip(".")
    unreachable = "Connect" in kind or "Timeout" in kind or "Offline" in kind
    return f"the hub could not be reached ({said})" if unreachable else said


def _bar(progress: Progress, description: str) -> Any:
    """A progress bar class for the library that draws nothing and tells `progress` instead."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self.done = options.get("initial") or 0
            self.whole: int | None = options.get("total")

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            progress(description, self.done, self.whole)

    return Bar
