"""Model families: a file each, about a page, from GGUF metadata to a graph in the words of the paper.

How to add one: a file `<family>.py` here with a function `(meta, g) -> Graph` under
`@architecture("name", ...)`, the names being those of `general.architecture`. `meta` gives the file's
settings (its own prefix added), `g` is a `graph.Builder` over the file's tensors. It is found because it is
here; there is no second place. The conformance tests run every case whose architecture they find.
`common.py` reads settings that many families have, `blocks.py` has parts of layers that many share.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgellm.errors import UnsupportedError
from edgellm.graph import Builder, Graph

if TYPE_CHECKING:
    from edgellm.gguf import GGUFFile, Metadata

Build = Callable[["Metadata", Builder], Graph]
_ARCHITECTURES: dict[str, Build] = {}


def architecture(*names: str) -> Callable[[Build], Build]:
    """Enter the decorated function under these architecture names."""

    def register(build: Build) -> Build:
        for name in names:
            _ARCHITECTURES[name] = build
        return build

    return register


def architectures() -> dict[str, Build]:
    """Every architecture that can be built, by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return _ARCHITECTURES


def build(file: GGUFFile) -> Graph:
    """The graph of a model file.

    Raises UnsupportedError for an unknown architecture, FormatError for a file that contradicts itself.
    """
    known = architectures()
    if file.architecture not in known:
        raise UnsupportedError(
            f"{file.path}: architecture {file.architecture!r} is not supported; "
            f"supported are {', '.join(sorted(known))}"
        )
    return known[file.architecture](file.meta, Builder(file.tensors))
