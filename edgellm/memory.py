"""How much memory there is, for the KV cache above all, and how many pages that makes."""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import MemoryLimitError

DEFAULT_CONTEXT = 8192  # tokens of one sequence where nobody asks for more
_SMALLEST_CONTEXT = 512  # what a context nobody asked for is never made smaller than
_CACHE_SHARE = 0.25  # of what is left beside the weights, where no limit was given
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class CachePlan:
    """The length of the longest sequence, in tokens, and the pages of the ring."""

    context_length: int
    num_pages: int


def available_memory() -> int | None:
    """Bytes that can be had without swapping, inside this process's cgroup; None where nobody says."""
    known = [x for x in (_system_available(), *map(_cgroup_available, _CGROUPS)) if x is not None]
    return min(known) if known else None


def total_memory() -> int | None:
    """Bytes of memory that this process could ever have: the machine's, or its cgroup's limit."""
    known = [x for x in (_system_total(), *(_cgroup_limit(limit) for limit, _ in _CGROUPS)) if x is not None]
    return min(known) if known else None


def give_back() -> None:
    """Let the system have what was freed, where the C library keeps it and can be asked."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim is not None:
            trim(0)


def _system_total() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _cgroup_limit(file: str) -> int | None:
    try:
        limit = Path(file).read_text().strip()
    except OSError:
        return None
    return int(limit) if limit.isdecimal() else None


def _system_available() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _cgroup_available(files: tuple[str, str]) -> int | None:
    try:
        limit, current = (Path(f).read_text().strip() for f in files)
        return max(int(limit) - int(current), 0) if limit.isdecimal() else None
    except (OSError, ValueError):
        return None


def plan_cache(
    *,
    page_size: int,
    page_bytes: int,
    other_bytes: int,
    model_context: int,
    context_length: int | None,
    max_sequences: int,
    memory_limit: int | None,
    available: int | None,
    low_memory_helps: bool,
) -> CachePlan:
    """Pages for `max_sequences` whole contexts where memory has room for them, else for one at least.

    `other_bytes` is all that is needed beside the cache. With a `memory_limit` everything must fit into it;
    else the cache gets a quarter of what is left of `available`, and more only where one context needs it. A
    context that nobody asked for (the model's, 8192 tokens at most) is made shorter where it does not fit.
    Raises MemoryLimitError, which advises low_memory if that helps.
    """
    whole = memory_limit if memory_limit is not None else available
    room = None if whole is None else (whole - other_bytes) // max(page_bytes, 1)
    context = context_length or min(model_context, DEFAULT_CONTEXT)
    one = -(-context // page_size)
    if room is None:
        return CachePlan(context, one * max_sequences)
    if room < one:
        least = context if context_length else min(context, _SMALLEST_CONTEXT)
        if room * page_size < least:
            cache = -(-least // page_size) * page_bytes
            refusal = _refusal(least, cache, other_bytes, whole or 0, max_sequences)
            raise MemoryLimitError(refusal + ", or low_memory (--low-memory)" * low_memory_helps)
        context, one = room * page_size, room
    share = room if memory_limit is not None else int(room * _CACHE_SHARE)
    return CachePlan(context, max(one, min(one * max_sequences, share)))


def _refusal(context: int, cache: int, other: int, whole: int, sequences: int) -> str:
    several = sequences > 1
    model = f"the model and what {sequences} sequences compute in" if several else "the model"
    smaller = "model, context_length or max_sequences" if several else "model or context_length"
    return (
        f"a context of {context} tokens needs {_mib(cache)} beside {_mib(other)} for {model}, and "
        f"{_mib(whole)} may be used: take a smaller {smaller}, or a larger memory_limit"
    )


def _mib(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"
