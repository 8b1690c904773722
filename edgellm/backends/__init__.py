"""Backends turn a graph into something that runs: `reference` (NumPy, the oracle) and `cpu` (compiled
kernels).

How to add one: a module (or package) here with a class that inherits `base.Backend` and fills its abstract
methods, and a row in `_BACKENDS` below. Optional dependencies are imported inside that module only.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from edgellm.errors import UsageError

if TYPE_CHECKING:
    from edgellm.backends.base import Backend

_BACKENDS = {
    "cpu": "edgellm.backends.cpu.backend:CPUBackend",
    "reference": "edgellm.backends.reference:ReferenceBackend",
}


def names() -> tuple[str, ...]:
    """What backends are called, the best first."""
    return tuple(_BACKENDS)


def find(name: str) -> type[Backend]:
    """The backend class `name`; "auto" is the best that this machine has."""
    name = "cpu" if name == "auto" else name
    if name not in _BACKENDS:
        raise UsageError(f"backend {name!r} is not one of auto, {', '.join(_BACKENDS)}", "backend")
    module, cls = _BACKENDS[name].split(":")
    found: type[Backend] = getattr(importlib.import_module(module), cls)
    return found
