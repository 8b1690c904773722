"""One process at a time: a lock that a killed process gives back, and that leaves no file behind."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_POLL_S = 0.2
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def lock_of(path: Path) -> Path:
    """The file whose lock stands for `path`."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock of `path`, whose folder must be there; yields False where the system has none.

    `waiting` is called several times a second while another process holds it, and may raise to give up.
    """
    try:
        import fcntl  # noqa: F401
    except ImportError:
        yield False
        return
    lock = lock_of(path)
    file, alone = _acquire(lock, waiting)
    with file:
        try:
            yield alone
        finally:
            if alone:
                # While it is held: whoever waits for this file sees that it has no name any more.
                lock.unlink(missing_ok=True)


def _acquire(lock: Path, waiting: Callable[[], None]) -> tuple[IO[bytes], bool]:
    while True:
        file = lock.open("ab")
        try:
            alone = _flock(file, waiting)
            if not alone or _is_still(file, lock):
                return file, alone
        except BaseException:
            file.close()
            raise
        file.close()


def _flock(file: IO[bytes], waiting: Callable[[], None]) -> bool:
    import fcntl

    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            waiting()
            time.sleep(_POLL_S)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return False
            raise


def _is_still(file: IO[bytes], lock: Path) -> bool:
    """Whether the name still means the file that was locked: an earlier holder removes it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), lock.stat())
    except FileNotFoundError:
        return False
