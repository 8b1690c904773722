"""All commands, and what their errors become."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Annotated

import typer

from edgellm import __version__
from edgellm.cli.bench import bench
from edgellm.cli.chat import chat
from edgellm.cli.doctor import doctor
from edgellm.cli.inspect import inspect
from edgellm.cli.list import list_models
from edgellm.cli.perplexity import perplexity
from edgellm.cli.pull import pull
from edgellm.cli.rm import rm
from edgellm.cli.run import run
from edgellm.cli.serve import serve
from edgellm.cli.tokenize import tokenize
from edgellm.errors import EdgeLLMError, UsageError

app = typer.Typer(
    help="A local language-model runtime.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(chat)
app.command()(run)
app.command()(serve)
app.command()(pull)
app.command("list")(list_models)
app.command()(rm)
app.command()(inspect)
app.command()(tokenize)
app.command()(bench)
app.command()(perplexity)
app.command()(doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"edgellm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and exit."),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in the program an error comes from.")
    ] = False,
) -> None:
    """A local language-model runtime.

    A MODEL is a name of the catalogue (`edgellm list`), the path of a .gguf file, or hf.co/USER/REPO[:QUANT].
    One that is not there yet is pulled.
    """
    _Settings.traceback = traceback


_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class _Settings:
    traceback = False


def run_app() -> None:
    """Run the command line, and end the process: 0 fine, 1 it failed, 2 wrong usage, 130 interrupted."""
    _Settings.traceback = False
    _prepare_streams()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # now, where it can still be said that this fails
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read has had enough
        _abandon_output()
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError):
            _abandon_output()
        if _Settings.traceback:
            raise
        print(f"edgellm: {_sentence(error)}", file=sys.stderr)
        # Only the plain UsageError is about what was typed; its subclasses are about prompts and models.
        sys.exit(2 if type(error) is UsageError else 1)


def _prepare_streams() -> None:
    """Closed streams are empty ones; input is UTF-8 in any locale; a letter that cannot be shown is `?`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for the life of the process)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="strict")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _abandon_output() -> None:
    """Let what is left to be written go nowhere: Python flushes once more at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    if isinstance(error, EdgeLLMError):
        return " ".join(str(error).split("\n"))
    if isinstance(error, OSError):
        if error.filename:
            return f"{error.filename}: {error.strerror}"
        return f"the output could not be written: {error.strerror}" if error.errno in _WRITING else str(error)
    what = f"{type(error).__name__}: {error}".split("\n")[0]
    return (
        f"this should not have happened, please report it with what `edgellm --traceback ...` shows ({what})"
    )
