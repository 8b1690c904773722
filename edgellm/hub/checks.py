"""Whether a file is the right one, and whether there is room for it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import IO

from edgellm.errors import DownloadError
from edgellm.hub.source import Expected, Progress

CHUNK = 1 << 20
FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFullError(OSError):
    """`needed` more bytes would have to fit into `folder`. `names.py` makes a sentence of it."""

    def __init__(self, folder: Path, needed: int) -> None:
        super().__init__(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        self.folder, self.needed = folder, needed


def require_room(folder: Path, needed: int) -> None:
    """Raise DiskFullError before a download that cannot end well; `folder` need not be there yet."""
    if free_bytes(folder) < needed:
        raise DiskFullError(folder, needed)


def free_bytes(folder: Path) -> int:
    """Bytes that are free where `folder` is, or would be."""
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def mebibytes(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**20:,.{0 if count >= 10 * 2**20 else 1}f} MiB"


def write(file: IO[bytes], data: bytes, folder: Path, needed: int) -> None:
    """Write all of `data`. Raises DiskFullError, which says that `needed` bytes were still to come."""
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(folder, needed) from error
        raise


def copy_checked(
    source: IO[bytes], path: Path, expected: Expected, progress: Progress, description: str
) -> None:
    """Write a stream to a new file, checking it on the way. Raises DownloadError if it is another file."""
    digest = hashlib.sha256()
    done = 0
    with path.open("xb", buffering=0) as file:
        while chunk := source.read(CHUNK):
            if expected.file_bytes is not None and done + len(chunk) > expected.file_bytes:
                done += len(chunk)
                break
            digest.update(chunk)
            write(file, chunk, path.parent, (expected.file_bytes or done + len(chunk)) - done)
            done += len(chunk)
            progress(description, done, expected.file_bytes)
        os.fsync(file.fileno())
    _compare(digest.hexdigest(), done, expected)


def check(path: Path, expected: Expected, progress: Progress, description: str) -> None:
    """Read a file that is already there and check it. Raises DownloadError if it is another file."""
    total = path.stat().st_size
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            done += len(chunk)
            digest.update(chunk)
            progress(description, done, total)
    _compare(digest.hexdigest(), done, expected)


def _compare(sha256: str, done: int, expected: Expected) -> None:
    if expected.file_bytes not in (None, done):
        raise DownloadError(f"the file should have {expected.file_bytes} bytes, but has another size")
    if expected.sha256 is not None and expected.sha256.lower() != sha256:
        raise DownloadError(f"the file's sha256 is {sha256}, but {expected.sha256} was expected")
