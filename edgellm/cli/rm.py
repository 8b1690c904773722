"""`edgellm rm`: take a model out of the store."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from edgellm.cli.options import Json


def rm(
    name: Annotated[str, typer.Argument(help="A name that `edgellm list` shows.")], as_json: Json = False
) -> None:
    """Take a model out of the store, or what came of it before its download was interrupted."""
    from edgellm import hub

    removed = hub.remove(name)
    for path in removed.kept:
        print(f"the file stays in another program's cache: {path}", file=sys.stderr)
    if as_json:
        print(json.dumps({"name": removed.name, "freed_bytes": removed.freed_bytes}))
    else:
        print(f"removed {removed.name}, {removed.freed_bytes / 2**20:.0f} MiB freed")
