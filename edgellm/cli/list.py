"""`edgellm list`: the models that are here, and those that can be pulled."""

from __future__ import annotations

import json
from typing import Any

from edgellm.cli.options import Json


def list_models(as_json: Json = False) -> None:
    """List the models of the store and of the catalogue."""
    rows = _rows()
    if as_json:
        print(json.dumps(rows))
        return
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        size = f"{row['bytes'] / 2**20:.0f} MiB" if row["bytes"] else "?"
        here = "here" if row["installed"] else "-"
        print(f"{row['name']:<{width}}  {here:<4}  {size:>9}  {row['description'] or ''}".rstrip())


def _rows() -> list[dict[str, Any]]:
    """Every known name once: what is in the store first."""
    from edgellm import hub

    known = hub.catalogue()
    here = {model.name: model for model in hub.installed()}
    names = [*here, *(name for name in known if name not in here)]
    return [
        {
            "name": name,
            "installed": name in here,
            "bytes": here[name].file_bytes if name in here else known[name].file_bytes,
            "path": str(here[name].path) if name in here else None,
            "description": known[name].description if name in known else None,
            "license": known[name].license if name in known else None,
        }
        for name in names
    ]
