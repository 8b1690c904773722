"""The terminal around a conversation: what was typed, what is said about it, Ctrl-C.

`editor.py` has the line editor, `commands.py` the commands.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgellm.cli.commands import FENCE, Session, do
from edgellm.cli.conversation import Conversation
from edgellm.cli.talk import Answer, stats_line, write
from edgellm.config import load_config
from edgellm.errors import ContextLengthError, EdgeLLMError

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession

PROMPT, MORE = ">>> ", "... "
_NEARLY_FULL = 0.9  # of the context


def session(conversation: Conversation, name: str) -> None:
    """Converse until the user leaves."""
    from edgellm.cli.editor import open_editor

    print(f"{name}: /help for help, /bye to leave")
    state = Session(conversation)
    editor = open_editor(load_config().home, lambda: meter(conversation))
    while not state.over:
        try:
            text, fenced = _read(editor, state)
        except KeyboardInterrupt:
            print("(Ctrl-D or /bye to leave)")
            continue
        except EOFError:
            return
        if text.startswith("/") and not fenced:
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
        problem = str(error).partition(":")[0]
        print(
            f"the conversation is full: {problem}; /undo or /clear makes room, --ctx may give more; "
            "/retry asks again, /edit brings the message back",
            file=sys.stderr,
        )
        return
    except EdgeLLMError as error:
        print(f"edgellm: {error}", file=sys.stderr)
        return
    _after(state, answer)


def _after(state: Session, answer: Answer) -> None:
    print("\n" if not answer.text.endswith("\n") else "")
    conversation = state.conversation
    if answer.finish_reason == "length":
        full = conversation.used >= conversation.context_length
        limit = f"at {conversation.params.max_tokens} tokens; /set max_tokens none lifts that"
        print("(cut off: the context is full)" if full else f"(cut off {limit})")
    if state.stats and answer.timings is not None:
        print(stats_line(answer.timings))
    if conversation.used > conversation.context_length * _NEARLY_FULL:
        print(f"({meter(conversation)}: /undo or /clear makes room, --ctx may give more)")


def meter(conversation: Conversation) -> str:
    """How full the context is; nothing before the first turn."""
    if not conversation.turns:
        return ""
    return f"{conversation.used:,} of {conversation.context_length:,} tokens of context"


def _read(editor: PromptSession[Any], state: Session) -> tuple[str, bool]:
    """What the user types, and whether it came in fences: then it is a message, whatever it begins with."""
    draft, state.draft = state.draft, ""
    text = _text(editor.prompt(PROMPT, default=draft))
    if not text.lstrip().startswith(FENCE):
        return text.strip(), False
    text = text.lstrip().removeprefix(FENCE)
    while not text.rstrip().endswith(FENCE):
        text += "\n" + _text(editor.prompt(MORE))
    return text.rstrip().removesuffix(FENCE).strip(), True


def _text(typed: str) -> str:
    """Bytes that are no UTF-8 come from the terminal as surrogates, which no tokenizer or file can take."""
    return typed.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
