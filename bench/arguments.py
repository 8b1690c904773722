"""What the benches' command lines have in common."""

from __future__ import annotations

import argparse

from edgellm.errors import EdgeLLMError
from edgellm.hub import resolve


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's own text; its first argument is a model."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", nargs="?", default="smollm2:135m")
    return made


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _number(text, 1)


def counts(text: str) -> list[int]:
    """The numbers of `1,2`, each at least 1."""
    return [_number(part, 1) for part in text.split(",")]


def counts_or_none(text: str) -> list[int]:
    """The numbers of `0,1,2`."""
    return [_number(part, 0) for part in text.split(",")]


def path_of(model: str) -> str:
    """Where a model's file is. Ends the script where there is none."""
    try:
        return str(resolve(model))
    except EdgeLLMError as error:
        raise SystemExit(str(error)) from error


def _number(text: str, least: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of at least {least}")
    return int(text)
