"""The terminal around a conversation: line editing, commands, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgellm.cli.conversation import Conversation
from edgellm.cli.talk import Answer, stats_line, write
from edgellm.config import load_config
from edgellm.errors import ContextLengthError, EdgeLLMError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

FENCE = '"""'
PROMPT, MORE = ">>> ", "... "


class _Session:
    """What the commands work on."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.stats = False
        self.over = False


def _help(session: _Session, rest: str) -> None:
    """this list"""
    for name, command in COMMANDS.items():
        print(f"  {name:<10} {command.__doc__}")
    print(f"  Alt-Enter or {FENCE} for several lines; Ctrl-C stops an answer; Ctrl-D leaves")


def _bye(session: _Session, rest: str) -> None:
    """leave"""
    session.over = True


def _clear(session: _Session, rest: str) -> None:
    """forget the conversation"""
    session.conversation.clear()
    print("(the conversation is forgotten)")


def _system(session: _Session, rest: str) -> None:
    """TEXT: set the system message; without TEXT, remove it"""
    session.conversation.set_system(rest or None)
    print("(the system message is set)" if rest else "(there is no system message)")


def _stats(session: _Session, rest: str) -> None:
    """show counts and speeds after each answer, or no longer"""
    session.stats = not session.stats
    last = session.conversation.last
    if session.stats and last is not None and last.timings is not None:
        print(stats_line(last.timings))
    print("(stats are on)" if session.stats else "(stats are off)")


# How to add one: a function whose docstring is its line in /help, and its row here.
COMMANDS: dict[str, Callable[[_Session, str], None]] = {
    "/help": _help,
    "/bye": _bye,
    "/clear": _clear,
    "/system": _system,
    "/stats": _stats,
}


def session(conversation: Conversation, name: str) -> None:
    """Converse until the user leaves."""
    print(f"{name}: /help for help, /bye to leave")
    editor = _editor()
    state = _Session(conversation)
    while not state.over:
        try:
            text = _read(editor)
        except KeyboardInterrupt:
            print("(Ctrl-D or /bye to leave)")
            continue
        except EOFError:
            return
        if text.startswith("/"):
            _do(state, text)
        elif text:
            _turn(state, text)


def _do(state: _Session, text: str) -> None:
    name, _, rest = text.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        print(f"there is no {name}; /help lists what there is")
    else:
        command(state, rest.strip())


def _turn(state: _Session, text: str) -> None:
    try:
        answer = state.conversation.say(text, write)
    except KeyboardInterrupt:
        print("\n(stopped)")
        return
    except ContextLengthError as error:
        print(f"the conversation is full: {error}; /clear begins anew", file=sys.stderr)
        return
    except EdgeLLMError as error:
        print(f"edgellm: {error}", file=sys.stderr)
        return
    _after(state, answer)


def _after(state: _Session, answer: Answer) -> None:
    print("\n" if not answer.text.endswith("\n") else "")
    if answer.finish_reason == "length":
        print("(cut off: --max-tokens, or the context's end)")
    if state.stats and answer.timings is not None:
        print(stats_line(answer.timings))


def _read(editor: PromptSession[Any]) -> str:
    """What the user types: a line, several by Alt-Enter, or all up to a closing fence."""
    text: str = editor.prompt(PROMPT)
    if not text.lstrip().startswith(FENCE):
        return text.strip()
    text = text.lstrip().removeprefix(FENCE)
    while FENCE not in text:
        text += "\n" + editor.prompt(MORE)
    return text.partition(FENCE)[0].strip()


def _editor() -> PromptSession[Any]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    history: History = InMemoryHistory()
    home = load_config().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "history").touch(mode=0o600)
        history = FileHistory(home / "history")
    except OSError:
        pass  # a home that cannot be written to costs the history only
    return PromptSession(
        history=history, key_bindings=_keys(), multiline=True, prompt_continuation=lambda *_: MORE
    )


def _keys() -> KeyBindings:
    """Enter sends and Alt-Enter begins a line, in an editor of several lines (pasted text keeps its own)."""
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def _send(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
