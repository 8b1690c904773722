"""Models of a Hugging Face repository, kept in its library's own cache (HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN).

That library resumes and locks downloads, and what another program has already fetched is not fetched
again. It is imported where it is used: it takes a while, and most starts do not need it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.errors import DownloadError, ModelNotFoundError, UnsupportedError, UsageError
from edgellm.hub.source import Expected, Progress
from edgellm.hub.store import check, require_room

PREFERRED_QUANTS = ("Q4_K_M", "Q4_0", "Q8_0")

_QUANT = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d\w*|T?Q\d_\d|BF16|F16|F32|(?:MX|NV)FP4\w*))$", re.IGNORECASE
)
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True)
class HuggingFaceSource:
    """`file` of the repository `repo` (USER/REPO), on its main branch."""

    repo: str
    file: str

    @property
    def label(self) -> str:
        """The repository, as its user would say it."""
        return f"the Hugging Face repository {self.repo}"

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> Path:
        """The file in the library's cache, downloaded if it is not there, and checked."""
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(self.repo, self.file)
        path = Path(cached) if isinstance(cached, str) else self._download(progress)
        description = f"checking {path.name}"
        published = _published(path)
        if published is not None:
            try:
                check(path, Expected(published), progress, description)
            except DownloadError:
                # Left in the cache, the broken file would be found again.
                (path.parent / path.readlink()).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise
        if expected.sha256 not in (None, published):
            check(path, expected, progress, description)
        return path

    def _download(self, progress: Progress) -> Path:
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

        name = Path(self.file).name
        with _reasons():
            remote = get_hf_file_metadata(hf_hub_url(self.repo, self.file), timeout=10)
        require_room(Path(constants.HF_HUB_CACHE), remote.size or 0)
        with _reasons():
            return Path(
                hf_hub_download(self.repo, self.file, tqdm_class=_bar(progress, f"downloading {name}"))
            )


@dataclass(frozen=True)
class RepositorySource:
    """Whatever file of the repository `repo` has the quant type `quant`, or is the best default."""

    repo: str
    quant: str | None

    @property
    def label(self) -> str:
        """The repository, as its user would say it."""
        return f"the Hugging Face repository {self.repo}"

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> Path:
        """Choose the file and fetch it; raises as `choose_file`, and as every source."""
        file = choose_file(self.repo, self.quant)
        return HuggingFaceSource(self.repo, file).fetch(folder, expected, progress)


def choose_file(repo: str, quant: str | None) -> str:
    """The .gguf of a repository that has the quant type asked for, or the best default.

    Raises DownloadError when the repository cannot be listed, ModelNotFoundError when nothing fits,
    UsageError when there is no evident default, UnsupportedError for a split set.
    """
    from huggingface_hub import HfApi

    with _reasons():
        siblings = HfApi().model_info(repo, timeout=10).siblings
    files = _models([sibling.rfilename for sibling in siblings or []])
    if not files:
        raise ModelNotFoundError(f"the Hugging Face repository {repo} holds no .gguf model")
    name = _named(repo, files, quant) if quant else _default(repo, files)
    if _SPLIT.search(Path(name).stem):
        raise UnsupportedError(
            f"{name} of {repo} is one of a split set, which is not pulled yet: "
            "choose another QUANT, or download the set and give the path of its first file"
        )
    return name


def quant_of(name: str) -> str:
    """The quant type in a file's name, in capitals; empty if there is none."""
    match = _QUANT.search(_SPLIT.sub("", Path(name).stem))
    return match.group(1).upper() if match else ""


def _models(names: list[str]) -> list[str]:
    """The .gguf files that hold a language model, shortest path first, a split set by its first file."""
    files = [name for name in names if name.lower().endswith(".gguf")]
    files = [name for name in files if not re.search("mmproj|imatrix", Path(name).name, re.IGNORECASE)]
    first = [name for name in files if "-of-" not in name or "-00001-of-" in name]
    return sorted(first, key=lambda name: (len(name), name))


def _named(repo: str, files: list[str], quant: str) -> str:
    for name in files:
        if quant.upper() in (quant_of(name), quant_of(name).removeprefix("UD-")):
            return name
    raise ModelNotFoundError(f"{repo} has no {quant}; it has: {_quants(files)}")


def _default(repo: str, files: list[str]) -> str:
    for quant in PREFERRED_QUANTS:
        for name in files:
            if quant_of(name) == quant:
                return name
    if len(files) == 1:
        return files[0]
    raise UsageError(
        f"{repo} holds several models: choose one, hf.co/{repo}:QUANT, of {_quants(files)}", "model"
    )


def _quants(files: list[str]) -> str:
    return ", ".join(sorted({quant_of(name) or name for name in files}))


def _published(path: Path) -> str | None:
    """The sha256 that the repository gives for a cached file: the name of the blob that it links to."""
    blob = path.readlink().name if path.is_symlink() else ""
    return blob if _SHA256.fullmatch(blob) else None


@contextmanager
def _reasons() -> Iterator[None]:
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
        raise DownloadError("it does not have that file any more") from error
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
