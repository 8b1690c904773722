"""The line editor of `edgellm chat`: its keys, what Tab completes, and the lines that it remembers."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from edgellm.cli.commands import ARGUMENTS, COMMANDS
from edgellm.cli.session import MORE

HISTORY_BYTES = 2**20  # of input lines; when there are more, the older half goes
_ENTRY = b"\n# "  # begins one in the file


def open_editor(home: Path, meter: Callable[[], str]) -> PromptSession[Any]:
    """An editor whose history is in `home`, with what `meter` says at the right of what is being typed."""
    return PromptSession(
        history=open_history(home / "history"),
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation=lambda *_: MORE,
        completer=CommandCompleter(),
        complete_while_typing=False,
        # Once the line is sent, the meter would only stand in the way of copying it.
        rprompt=lambda: "" if get_app().is_done else meter(),
    )


class CommandCompleter(Completer):
    """Completes commands, and what can come after one."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """The words that what is before the cursor can become."""
        command, space, rest = document.text_before_cursor.partition(" ")
        if not command.startswith("/") or "\n" in command:
            return
        words, typed = (ARGUMENTS.get(command, list)(), rest) if space else (list(COMMANDS), command)
        for word in words:
            if word.startswith(typed):
                yield Completion(word, start_position=-len(typed))


def open_history(path: Path) -> History:
    """The lines in a file that only its owner may read; in memory where there can be no such file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)):
            path.chmod(0o600)
        _shorten(path)
    except OSError:
        return InMemoryHistory()
    return _History(path)


def _shorten(path: Path) -> None:
    if path.stat().st_size <= HISTORY_BYTES:
        return
    newer = path.read_bytes()[-HISTORY_BYTES // 2 :]
    entry = newer.find(_ENTRY)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(newer[entry:] if entry >= 0 else b"")
    os.replace(name, path)


class _History(FileHistory):
    """A disk that fills up, or a file that goes away, costs the history only."""

    def load_history_strings(self) -> Iterable[str]:
        try:
            return list(super().load_history_strings())
        except OSError:
            return []

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)


def _keys() -> KeyBindings:
    """Enter sends and Alt-Enter begins a line, in an editor of several lines (pasted text keeps its own)."""
    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
