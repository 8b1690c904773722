"""What the benches' command lines have in common."""

from __future__ import annotations

import argparse

from edgellm.config import MAX_THREADS
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


def threads(text: str) -> int:
    """A number of threads that edgellm takes."""
    return _number(text, 1, MAX_THREADS)


def threads_each(text: str) -> list[int]:
    """The numbers of threads of `1,2`."""
    return [threads(part) for part in text.split(",")]


def counts_or_none(text: str) -> list[int]:
    """The numbers of `0,1,2`."""
    return [_number(part, 0) for part in text.split(",")]


def path_of(model: str) -> str:
    """Where a model's file is. Ends the script where there is none."""
    try:
        return str(resolve(model))
    except EdgeLLMError as error:
        raise SystemExit(str(error)) from error


def _number(text: str, least: int, most: int = 10**9 - 1) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number from {least} to {most}")
    return int(text)
