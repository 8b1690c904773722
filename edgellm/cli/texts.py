"""Texts that a command reads, and shows."""

from __future__ import annotations

import sys
from pathlib import Path

from edgellm.errors import UsageError


def read_text(file: Path | None) -> str:
    """All of a file, or of standard input. UsageError if it is not UTF-8, OSError if it cannot be read."""
    data = sys.stdin.buffer.read() if file is None else file.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = "standard input" if file is None else str(file)
        raise UsageError(f"{where} is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from None


def printable(text: str, kept: str = "") -> str:
    """Without control characters, which a terminal would obey, but for those that are kept."""
    return "".join(c for c in text if c in kept or (c >= " " and not "\x7f" <= c <= "\x9f"))
