"""How many threads should compute: physical cores that this process may use, within its container's quota."""

from __future__ import annotations

import os
from pathlib import Path

from edgellm.config import load_config


def default_threads() -> int:
    """What EDGELLM_THREADS says; else physical cores, cut down to the affinity mask and the cgroup's CPU
    quota; at least 1.
    """
    if forced := load_config().threads:
        return forced
    allowed = _allowed_cpus()
    return max(1, min(_physical_cores(allowed), _quota(len(allowed))))


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _physical_cores(allowed: set[int]) -> int:
    """Allowed CPUs, counting siblings of one core once, where the system tells."""
    cores: set[str] = set()
    for cpu in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(path.read_text().strip())
        except OSError:
            return len(allowed)
    return len(cores)


def _quota(most: int) -> int:
    """CPUs' worth of time that a cgroup (version 2) grants, rounded down."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return most if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return most
