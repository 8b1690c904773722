"""The command line: one file a command.

How to add one: a file with a function of the command's name, whose parameters are its arguments and options
(options.py has those that several share), and its line in app.py. What is slow to import (rich,
prompt_toolkit, starlette, numpy, tokenizers, the engine) is imported inside the function.
Results go to stdout, everything else to stderr; `--json` prints exactly one JSON document.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point of `edgellm`."""
    try:
        from edgellm.cli.app import run_app

        run_app()
    except KeyboardInterrupt:  # while the commands are imported
        sys.exit(130)
