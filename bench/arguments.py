"""What the benches' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from edgellm.errors import EdgeLLMError, shown
from edgellm.gguf import open_gguf
from edgellm.hub import resolve

_MOST = 10**9 - 1


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's own text; its first argument is a model."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("model", nargs="?", default="smollm2:135m")
    return made


def number(least: int = 1, most: int = _MOST) -> Callable[[str], int]:
    """The type of an option that is a whole number."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{shown(text, 40)} is no whole number from {least} to {most}")
        return int(text)

    return parse


def numbers(least: int = 1, most: int = _MOST) -> Callable[[str], list[int]]:
    """The type of an option that is some, as `1,2`."""
    parse = number(least, most)
    return lambda text: [parse(part) for part in text.split(",")]


def path_of(model: str) -> str:
    """Where a model's file is. Ends the script where there is none, or it is no model's."""
    try:
        path = resolve(model)
        open_gguf(path).close()
        return str(path)
    except EdgeLLMError as error:
        raise SystemExit(str(error)) from error
