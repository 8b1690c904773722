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

# What some names stand for that no text model bears, so that refusing them says more than "unknown".
_OTHER_KINDS = {
    "clip": "the part of a model that sees or hears (an mmproj file); give the text model's file",
    "mllama": "a model that sees",
    "qwen2vl": "a model that sees",
    "cogvlm": "a model that sees",
    "chameleon": "a model that sees",
    "whisper": "speech recognition",
    "wavtokenizer-dec": "an audio decoder",
    "t5": "an encoder and decoder",
    "t5encoder": "a text encoder of an image generator",
    "flux": "an image generator",
    "sd1": "an image generator",
    "sdxl": "an image generator",
    "sd3": "an image generator",
    "wan": "a video generator",
    "imatrix": "statistics for quantizing, not a model",
}


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
        kind = _OTHER_KINDS.get(file.architecture)
        what = f" ({kind})" if kind else ""
        raise UnsupportedError(
            f"{file.path}: architecture {file.architecture!r}{what} is not supported; "
            f"supported are {', '.join(sorted(known))}"
        )
    return known[file.architecture](file.meta, Builder(file.tensors))
