"""Names to files: what a MODEL is called, where it comes from, and where it lies on this machine.

A MODEL is a catalogue name (`smollm2:135m`), a path to a .gguf, or `hf.co/USER/REPO[:QUANT]`. `resolve`
turns any of them into a path, and pulls what is not there yet.

    names.py       a name to a file: in the store, or pulled into it      entries.py   the catalogue
    store.py       what is in the store; sets.py: models in several files
    incoming.py    what is on its way into it; locks.py: one process at a time
    pypi.py, huggingface.py    the sources; index.py and repository.py find the files there
    transfer.py    one file over HTTP, continued after an interruption; partial.py: what has come of it;
    checks.py      whether it is the right one; arriving.py: how it begins, before all of it is here

How to add a model: an entry in `models/catalog.toml`; no code.
How to add a kind of source: a frozen dataclass with `label`, `fetch` and `head` (see `source.py`) in a file
of its own, and a row in `entries.SOURCES`.
"""

from __future__ import annotations

from edgellm.hub.entries import Entry, catalogue
from edgellm.hub.names import head, pull, recommended_sampling, remove, resolve
from edgellm.hub.source import Progress
from edgellm.hub.store import Installed, Removed, file_bytes, installed

__all__ = [
    "Entry",
    "Installed",
    "Progress",
    "Removed",
    "catalogue",
    "file_bytes",
    "head",
    "installed",
    "pull",
    "recommended_sampling",
    "remove",
    "resolve",
]
