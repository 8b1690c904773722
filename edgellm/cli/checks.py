"""What `doctor` looks at: a function a subject, which gives facts and appends what is wrong.

How to add one: a function `(problems) -> facts` here and its row in CHECKS. A problem is one sentence that
ends with how to mend it. Nothing here may import Numba: what needs it is tried in a child process.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm import __version__, backends, hub
from edgellm.backends.cpu.threads import default_threads
from edgellm.config import load_config
from edgellm.errors import EdgeLLMError
from edgellm.kernels.cache import cache_folder, read_object
from edgellm.memory import available_memory, total_memory
from edgellm.simd import targets

Facts = dict[str, Any]
Check = Callable[[list[str]], Facts]

_PACKAGES = ("numpy", "numba", "llvmlite", "tokenizers", "jinja2", "starlette", "uvicorn", "rich", "typer")
_LEAST_MEMORY = 256 << 20  # the smallest model of the catalogue, with Python
_LEAST_DISK = 1 << 30
_TRIAL_SECONDS = 300
_TRIAL = (
    "import numba\n"
    "from edgellm.backends.cpu.team import KERNELS\n"
    "from edgellm.kernels.cache import load_kernels\n"
    "load_kernels(KERNELS)\n"
)


@dataclass
class Report:
    """Facts by subject, and what is wrong."""

    facts: dict[str, Facts] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def examine() -> Report:
    """Look at everything; a look that fails is itself a problem."""
    report = Report()
    for subject, check in CHECKS.items():
        report.facts[subject] = {}
        try:
            report.facts[subject] = check(report.problems)
        except (EdgeLLMError, OSError) as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    return report


# -- the machine -----------------------------------------------------------------------------------


def cpu(problems: list[str]) -> Facts:
    """The CPU, and the target that kernels are compiled for."""
    known = [t.name for t in targets.available()]
    chosen = targets.choose(load_config().target)
    return {
        "name": _cpu_name() or platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "llvm_name": targets.llvm_cpu(chosen)[0],
        "target": chosen.name,
        "targets": known,
        "features": sorted(name for name, there in targets.host_features().items() if there),
    }


def _cpu_name() -> str | None:
    """What the system calls the CPU, or on a board the board."""
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or None
    for path, key in (("/proc/cpuinfo", "model name"), ("/proc/cpuinfo", "Model")):
        for line in _read(path).splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key and value.strip():
                return value.strip()
    return _read("/sys/firmware/devicetree/base/model").strip("\0\n ") or None


def threads(problems: list[str]) -> Facts:
    """How many threads compute, and why so many."""
    forced = load_config().threads
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chosen, quota = default_threads(), _quota()
    if chosen > allowed:
        problems.append(
            f"EDGELLM_THREADS is {chosen}, but this process may use {allowed} CPUs, and threads that "
            f"wait for each other are slow: set it to {allowed} at most"
        )
    facts = {"chosen": chosen, "cpus": os.cpu_count(), "allowed": allowed, "quota": quota}
    return {**facts, "why": _why(chosen, forced, allowed, quota)}


def _why(chosen: int, forced: int | None, allowed: int, quota: float | None) -> str:
    if forced:
        return "EDGELLM_THREADS says so"
    if quota is not None and quota < allowed and chosen == max(1, int(quota)):
        return f"the container may use the time of {quota:g} CPUs"
    if chosen < allowed:
        return f"one for each physical core; this process may use {allowed} logical CPUs"
    return "all that this process may use"


def _quota() -> float | None:
    """CPUs' worth of time that a cgroup (version 2) grants, where it grants less than all."""
    limit, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    return int(limit) / int(period) if limit.isdecimal() and period.strip().isdecimal() else None


def memory(problems: list[str]) -> Facts:
    """Bytes that can be had now, and those there ever are."""
    available, total = available_memory(), total_memory()
    if available is not None and available < _LEAST_MEMORY:
        problems.append(
            f"only {available >> 20} MiB of memory are available, and the smallest model needs about "
            f"{_LEAST_MEMORY >> 20}: close other programs, or give the container more"
        )
    return {"available": available, "total": total}


# -- software --------------------------------------------------------------------------------------


def versions(problems: list[str]) -> Facts:
    """Versions of Python and of what edgellm builds on."""
    found: Facts = {"edgellm": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
            problems.append(f"the package {name} is not installed: `pip install {name}` adds it")
    return found


def compiler(problems: list[str]) -> Facts:
    """Whether kernels compile and load: tried in a child process, which an unfit CPU or library may kill."""
    targets.choose(load_config().target)  # what is wrong with the settings is no fault of the compiler's
    path = os.pathsep.join([str(Path(backends.__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)}
    command = [sys.executable, "-P", "-c", _TRIAL]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        problems.append(f"kernels do not compile within {_TRIAL_SECONDS} s: is the machine very busy?")
        return {"works": False}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
        problems.append(
            f"kernels do not compile and load here ({last}): `pip install --force-reinstall numba llvmlite` "
            "often mends it, EDGELLM_TARGET=generic avoids this CPU's special instructions"
        )
    return {"works": done.returncode == 0}


def backends_found(problems: list[str]) -> Facts:
    """Backends, and why one cannot be used."""
    found: Facts = {}
    for name in backends.names():
        try:
            backends.find(name)
            found[name] = "ok"
        except (ImportError, OSError, EdgeLLMError) as error:
            found[name] = str(error)
            problems.append(f"the {name} backend cannot be used ({error}): install what it names")
    return found


# -- what is kept on disk --------------------------------------------------------------------------


def kernels(problems: list[str]) -> Facts:
    """The cache of compiled kernels."""
    config = load_config()
    known = {cache_folder(t) for t in targets.available()}
    current = cache_folder(targets.choose(config.target))
    objects = sorted(current.glob("*.o"))
    stale = [f for f in _folders(config.kernels) if f not in known]
    writable = is_writable(config.kernels)
    if not writable:
        problems.append(
            f"{config.kernels} cannot be written, so kernels are compiled at every start: make it "
            "writable, or set EDGELLM_HOME to a folder that is"
        )
    return {
        "folder": str(current),
        "writable": writable,
        "entries": len(objects),
        "bytes": sum(o.stat().st_size for o in objects),
        "damaged": [o.name for o in objects if read_object(o) is None],
        "stale_folders": [str(f) for f in stale],
        "stale_bytes": sum(f.stat().st_size for folder in stale for f in folder.glob("*.o")),
    }


def store(problems: list[str]) -> Facts:
    """The model store, and the disk it is on."""
    folder = load_config().models
    writable, free = is_writable(folder), shutil.disk_usage(_existing(folder)).free
    if not writable:
        problems.append(
            f"{folder} cannot be written, so no model can be pulled: make it writable, or set "
            "EDGELLM_HOME to a folder that is"
        )
    if free < _LEAST_DISK:
        problems.append(
            f"the disk of {folder} has {free >> 20} MiB left, less than most models need: make room, or set "
            "EDGELLM_HOME to a folder on another disk"
        )
    here = hub.installed()
    return {
        "folder": str(folder),
        "writable": writable,
        "models": [model.name for model in here],
        "bytes": sum(model.file_bytes for model in here),
        "disk_free": free,
    }


def is_writable(folder: Path) -> bool:
    """Whether a file can be made in a folder, or in the nearest one above it that exists."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return True
    except OSError:
        return False


def _existing(folder: Path) -> Path:
    return next((f for f in (folder, *folder.parents) if f.exists()), Path("/"))


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir()) if folder.is_dir() else []


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


CHECKS: dict[str, Check] = {
    "cpu": cpu,
    "threads": threads,
    "memory": memory,
    "versions": versions,
    "compiler": compiler,
    "kernels": kernels,
    "models": store,
    "backends": backends_found,
}
