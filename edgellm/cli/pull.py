"""`edgellm pull`: fetch a model."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from edgellm.cli.options import Json


def pull(
    name: Annotated[str, typer.Argument(help="A name of the catalogue, or hf.co/USER/REPO[:QUANT].")],
    as_json: Json = False,
) -> None:
    """Fetch a model into the store, and print where it is. After an interruption it goes on where it was."""
    from edgellm import hub
    from edgellm.cli.progress import ProgressShow

    try:
        with ProgressShow() as show:
            path = hub.pull(name, lambda what, done, total: show(what, done, total))
    except KeyboardInterrupt:
        print(f"interrupted: `edgellm pull {name}` goes on from here", file=sys.stderr)
        raise
    print(json.dumps({"name": name, "path": str(path), "bytes": hub.file_bytes(path)}) if as_json else path)
