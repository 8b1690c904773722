"""Settings that are fixed at start: frozen, checked once, and the only reader of EDGELLM_* variables.

EDGELLM_HOME       models, kernels and history live here        (default: ~/.cache/edgellm)
EDGELLM_TARGET     the CPU's instruction set, by name            (default: the best this CPU has)
EDGELLM_THREADS    threads that compute                          (default: physical cores allowed)
EDGELLM_CROSS      compile kernels for another machine: "target,triple,cpu,features" as LLVM names them;
                   what comes out does not run here
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import UsageError, shown

DEFAULT_MODEL = "smollm2:135m"
MAX_THREADS = 1024  # more than any machine has cores; the system may not be able to start so many


@dataclass(frozen=True)
class Cross:
    """Another machine than this one: its target's name, and LLVM's triple, CPU and features."""

    target: str
    triple: str
    cpu: str
    features: str


@dataclass(frozen=True)
class Config:
    """Where things live and what is forced, as the environment says."""

    home: Path
    target: str | None
    threads: int | None
    cross: Cross | None = None

    @property
    def kernels(self) -> Path:
        """The folder of compiled kernels."""
        return self.home / "kernels"

    @property
    def models(self) -> Path:
        """The folder of downloaded models."""
        return self.home / "models"


def load_config() -> Config:
    """Read the environment. Raises UsageError for a value that makes no sense."""
    home = os.environ.get("EDGELLM_HOME")
    return Config(
        home=_expanded(home) if home else _cache_root() / "edgellm",
        target=os.environ.get("EDGELLM_TARGET") or None,
        threads=_threads(os.environ.get("EDGELLM_THREADS")),
        cross=_cross(os.environ.get("EDGELLM_CROSS")),
    )


def _threads(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MAX_THREADS:
        raise UsageError(
            f"EDGELLM_THREADS is {shown(text)}: it must be a whole number from 1 to {MAX_THREADS}"
        )
    return int(text)


def _cross(text: str | None) -> Cross | None:
    if not text:
        return None
    if text.count(",") < 2:
        raise UsageError(f"EDGELLM_CROSS is {text!r}: it must be target,triple,cpu and perhaps features")
    target, triple, cpu, *features = text.split(",", 3)
    return Cross(target, triple, cpu, "".join(features))


def _cache_root() -> Path:
    xdg = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(xdg) if xdg else Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError("there is no home folder to keep models in: set EDGELLM_HOME to a folder") from error


def _expanded(home: str) -> Path:
    try:
        return Path(home).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"EDGELLM_HOME is {home!r}, and there is no such home folder: set it to a folder"
        ) from error


def data_folder(name: str) -> Path:
    """The folder of the project's own data, `models` or `native`: inside the wheel, or beside a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "_data" / name
    return installed if installed.is_dir() else package.parent / name
