"""The terminal around a conversation: line editing, the meter, Ctrl-C. `commands.py` has the commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgellm.cli.commands import COMMANDS, FENCE, Session, do
from edgellm.cli.conversation import Conversation
from edgellm.cli.talk import Answer, stats_line, write
from edgellm.config import load_config
from edgellm.errors import ContextLengthError, EdgeLLMError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.key_binding import KeyBindings

PROMPT, MORE = ">>> ", "... "
_NEARLY_FULL = 0.9  # of the context


def session(conversation: Conversation, name: str) -> None:
    """Converse until the user leaves."""
    print(f"{name}: /help for help, /bye to leave")
    state = Session(conversation)
    editor = _editor(state)
    while not state.over:
        try:
            text = _read(editor, state)
        except KeyboardInterrupt:
            print("(Ctrl-D or /bye to leave)")
            continue
        except EOFError:
            return
        if text.startswith("/"):
            _command(state, text)
        elif text:
            _turn(state, text)


def _command(state: Session, text: str) -> None:
    try:
        do(state, text)
    except EdgeLLMError as error:
        print(error, file=sys.stderr)
        return
    if state.again is not None:
        text, state.again = state.again, None
        _turn(state, text)


def _turn(state: Session, text: str) -> None:
    try:
        answer = state.conversation.say(text, write)
    except KeyboardInterrupt:
        print("\n(stopped)")
        return
    except ContextLengthError as error:
        print(f"the conversation is full: {error}; /undo or /clear makes room", file=sys.stderr)
        return
    except EdgeLLMError as error:
        print(f"edgellm: {error}", file=sys.stderr)
        return
    _after(state, answer)


def _after(state: Session, answer: Answer) -> None:
    print("\n" if not answer.text.endswith("\n") else "")
    if answer.finish_reason == "length":
        print("(cut off: --max-tokens, or the context's end)")
    if state.stats and answer.timings is not None:
        print(stats_line(answer.timings))
    used, most = state.conversation.used, state.conversation.context_length
    if used > most * _NEARLY_FULL:
        print(f"({meter(used, most)}: /undo or /clear makes room, --ctx gives more)")


def meter(used: int, most: int) -> str:
    """How full the context is."""
    return f"{used:,} of {most:,} tokens of context"


def _read(editor: PromptSession[Any], state: Session) -> str:
    """What the user types: a line, several by Alt-Enter, or all up to a closing fence."""
    draft, state.draft = state.draft, ""
    text: str = editor.prompt(PROMPT, default=draft)
    if not text.lstrip().startswith(FENCE):
        return text.strip()
    text = text.lstrip().removeprefix(FENCE)
    while FENCE not in text:
        text += "\n" + editor.prompt(MORE)
    return text.partition(FENCE)[0].strip()


def _editor(state: Session) -> PromptSession[Any]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory

    history: History = InMemoryHistory()
    home = load_config().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        (home / "history").touch(mode=0o600)
        history = FileHistory(home / "history")
    except OSError:
        pass  # a home that cannot be written to costs the history only
    conversation = state.conversation
    return PromptSession(
        history=history,
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation=lambda *_: MORE,
        completer=WordCompleter(list(COMMANDS), sentence=True),
        complete_while_typing=False,
        rprompt=lambda: meter(conversation.used, conversation.context_length) if conversation.turns else "",
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
