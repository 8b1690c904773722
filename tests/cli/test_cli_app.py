"""What all commands have in common."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

import edgellm
from edgellm.cli.app import app
from edgellm.errors import ContextLengthError, EdgeLLMError, UsageError

HEAVY = (
    "rich",
    "prompt_toolkit",
    "starlette",
    "uvicorn",
    "numpy",
    "tokenizers",
    "jinja2",
    "llvmlite",
    "numba",
)
COMMANDS = sorted(typer.main.get_command(app).commands)


def test_version(cli):
    ended = cli("--version")
    assert (ended.code, ended.out) == (0, f"edgellm {edgellm.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli, command):
    ended = cli(command, "--help")
    assert ended.code == 0
    assert len(ended.out.splitlines()) > 5


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_options_are_wrong_usage(cli, command):
    ended = cli(command, "--no-such-option")
    assert ended.code == 2
    assert ended.out == ""
    assert "--no-such-option" in ended.err


@pytest.mark.parametrize("arguments", [("bench", "NO"), ("inspect", "NO"), ("perplexity", "NO", "FILE")])
def test_more_threads_than_any_machine_has_are_wrong_usage(cli, arguments):
    for count in ("1025", "9" * 5000):
        ended = cli(*arguments, "--threads", count)
        assert ended.code == 2
        assert "--threads" in ended.err
    assert "1024" in cli(*arguments, "--threads", "1025").err


def test_without_a_command_there_is_help(cli):
    ended = cli()
    assert "chat" in ended.out + ended.err


def test_nothing_heavy_is_imported_before_a_command_needs_it():
    code = f"import sys, edgellm.cli.app; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EdgeLLMError("it is\nbroken"), 1),
        (UsageError("the option is wrong"), 2),
        (ContextLengthError("the prompt is too long"), 1),
        (ZeroDivisionError("oops"), 1),
        (FileNotFoundError(2, "No such file", "x.txt"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_sentence_and_an_exit_code(cli, fake, monkeypatch, error, code):
    def fail(*asked):
        raise error

    monkeypatch.setattr("edgellm.cli.loading.load_model", fail)
    ended = cli("run", "Hi", "--json")
    assert ended.code == code
    assert ended.out == ""
    assert "Traceback" not in ended.err
    if code != 130:
        assert ended.err.startswith("edgellm: ")
        assert ended.err.count("\n") == 1


def test_traceback_shows_where(monkeypatch):
    done = subprocess.run(
        [sys.executable, "-m", "edgellm", "--traceback", "run", "/no/such.gguf", "Hi"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
