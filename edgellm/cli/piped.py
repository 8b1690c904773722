"""What comes in on standard input."""

from __future__ import annotations

import os
import select
import stat
import sys

from edgellm.errors import UsageError

_WAIT_S = 10.0  # whoever started this program may have left a pipe open, and never write to it


def read_prompt() -> str:
    """All of standard input. UsageError if there is nobody to type it, or nothing in it."""
    if sys.stdin.isatty():
        raise UsageError(
            'there is no prompt: edgellm run MODEL "PROMPT", or pipe it in; edgellm chat converses'
        )
    text = _read()
    if not text.strip():
        raise UsageError("the prompt on standard input is empty")
    return text


def with_piped(prompt: str) -> str:
    """The prompt, after what is piped in: `cat FILE | edgellm run "Sum this up"`."""
    text = _read() if _something_comes() else ""
    return f"{text.rstrip()}\n\n{prompt}" if text.strip() else prompt


def _something_comes() -> bool:
    """Whether standard input is a file, or a pipe (a socket, from some programs) into which something is
    written before long.
    """
    try:
        number = sys.stdin.fileno()
        mode = os.fstat(number).st_mode
    except (AttributeError, OSError, ValueError):  # closed, or replaced by what is no file
        return False
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return stat.S_ISREG(mode)
    if select.select([number], [], [], _WAIT_S)[0]:
        return True
    print(
        f"edgellm: nothing came on standard input for {_WAIT_S:g} s: the PROMPT goes alone", file=sys.stderr
    )
    return False


def _read() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not {error.encoding} text: {error.reason}") from None
