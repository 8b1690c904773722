"""`edgellm pull`: fetch a model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from edgellm.cli.options import Json


def pull(
    name: Annotated[str, typer.Argument(help="A name of the catalogue, or hf.co/USER/REPO[:QUANT].")],
    as_json: Json = False,
) -> None:
    """Fetch a model into the store, and print where it is."""
    from edgellm import hub
    from edgellm.cli.progress import ProgressShow

    with ProgressShow() as show:
        path = hub.pull(name, lambda what, done, total: show(what, done, total))
    print(json.dumps({"name": name, "path": str(path), "bytes": path.stat().st_size}) if as_json else path)
