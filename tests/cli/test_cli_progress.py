"""How progress is shown: lines for a file, bars for a terminal, nothing for what is quickly over."""

from __future__ import annotations

import io

import pytest

from edgellm.cli import progress
from edgellm.cli.progress import ProgressShow


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0)


def test_what_is_quickly_over_shows_nothing(capsys):
    with ProgressShow() as show:
        show("packing weights", 0, 2)
        show("packing weights", 2, 2)
    assert capsys.readouterr() == ("", "")


def test_a_file_gets_one_line_for_each_thing_that_is_done(capsys, impatient):
    with ProgressShow() as show:
        for done in range(3):
            show("downloading a model", done * 2**20, 2 * 2**20)
        show("compiling kernels", 1, 9)
        show("looking around", 1, 0)
    captured = capsys.readouterr()
    assert captured.err == "downloading a model (2 MiB) ...\ncompiling kernels ...\nlooking around ...\n"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("done", "total", "says"), [(2**20, 2 * 2**20, "1/2 MiB"), (3, 9, "3/9"), (2**20, None, "1 MiB")]
)
def test_a_terminal_gets_a_bar(monkeypatch, impatient, done, total, says):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with ProgressShow() as show:
        show("working", done, total)
        show("working", done, total)
    assert "working" in terminal.getvalue()
    assert says in terminal.getvalue()
