"""Names to files: what a MODEL is called, where it comes from, and where it lies on this machine.

A MODEL is a catalogue name (`smollm2:135m`), a path to a .gguf, or `hf.co/USER/REPO[:QUANT]`. `resolve`
turns any of them into a path, and pulls what is not there yet.

How to add a model: an entry in `models/catalog.toml`; no code.
How to add a kind of source: a frozen dataclass with `label` and `fetch` (see `source.py`) in a file of its
own, and a row in `entries.SOURCES`.
"""

from __future__ import annotations

from edgellm.hub.entries import Entry, catalogue
from edgellm.hub.names import pull, remove, resolve
from edgellm.hub.source import Progress
from edgellm.hub.store import Installed, Removed, installed

__all__ = [
    "Entry",
    "Installed",
    "Progress",
    "Removed",
    "catalogue",
    "installed",
    "pull",
    "remove",
    "resolve",
]
