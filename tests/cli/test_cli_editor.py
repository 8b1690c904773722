"""The line editor of `edgellm chat`: what Tab completes, and the history on disk."""

from __future__ import annotations

import stat
import sys

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory

from edgellm.cli import editor
from edgellm.cli.commands import ARGUMENTS, COMMANDS, PARAMETERS
from edgellm.cli.editor import CommandCompleter, open_history


def completed(text):
    return [c.text for c in CommandCompleter().get_completions(Document(text), CompleteEvent())]


def stored(path):
    """The lines in a history file, latest first."""
    return list(open_history(path).load_history_strings())


def test_tab_completes_commands():
    assert completed("/") == list(COMMANDS)
    assert completed("/s") == [name for name in COMMANDS if name.startswith("/s")]
    assert completed("what is /s") == []
    assert completed("/s\n") == []


def test_tab_completes_what_follows_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path))
    (tmp_path / "chats").mkdir()
    (tmp_path / "chats" / "monday morning.json").touch()
    assert set(ARGUMENTS) <= set(COMMANDS)
    assert completed("/set ") == PARAMETERS
    assert completed("/set temp") == ["temperature"]
    assert completed("/load monday m") == ["monday morning"]
    assert completed("/bye x") == []


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such permissions")
def test_lines_are_kept_for_their_owner_alone(tmp_path):
    path = tmp_path / "home" / "history"
    open_history(path).store_string("one\ntwo")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert stored(path) == ["one\ntwo"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_older_half_of_a_long_history_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(editor, "HISTORY_BYTES", 4000)
    path = tmp_path / "history"
    history = open_history(path)
    lines = [f"line {i}\nand more" for i in range(200)]
    for line in lines:
        history.store_string(line)
    kept = stored(path)
    assert 10 < len(kept) < 100
    assert kept == lines[: -len(kept) - 1 : -1]
    assert path.stat().st_size <= 2000
    assert [p.name for p in tmp_path.iterdir()] == ["history"]


def test_a_home_that_cannot_be_written_costs_the_history_only(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "history").mkdir(parents=True)
    for path in (tmp_path / "file" / "history", tmp_path / "folder" / "history"):
        assert isinstance(open_history(path), InMemoryHistory)


def test_a_home_that_goes_away_costs_the_history_only(tmp_path):
    path = tmp_path / "home" / "history"
    history = open_history(path)
    path.unlink()
    path.mkdir()
    history.store_string("lost")
    assert list(history.load_history_strings()) == []
