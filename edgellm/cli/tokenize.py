"""`edgellm tokenize`: a text's token ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgellm.cli.options import Json
from edgellm.cli.texts import read_text
from edgellm.errors import UsageError


def tokenize(
    model: Annotated[str, typer.Argument(help="A name, a path, or hf.co/USER/REPO[:QUANT].")],
    text: Annotated[str | None, typer.Argument(show_default="standard input")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the text from this file.", show_default=False)
    ] = None,
    no_special: Annotated[
        bool, typer.Option("--no-special", help="Add no begin or end of text; read no control tokens.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a text's token ids, one a line with its spelling."""
    from edgellm.cli.progress import ProgressShow
    from edgellm.hub import resolve
    from edgellm.tokenizers import Tokenizer

    content = _content(text, file)
    with ProgressShow() as show:
        path = resolve(model, lambda what, done, total: show(what, done, total))
    tokenizer = Tokenizer(path)
    tokens = tokenizer.encode(content, add_special=not no_special, parse_special=not no_special)
    if as_json:
        print(json.dumps({"tokens": tokens}))
        return
    for token in tokens:
        print(f"{token:>8}  {tokenizer.token_bytes(token).decode('utf-8', 'replace')!r}")


def _content(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise UsageError("there is a TEXT and a --file: give one of them", "file")
    return text if text is not None else read_text(file)
