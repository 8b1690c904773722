"""What can be typed at the prompt of `edgellm chat` instead of a message.

How to add one: a function (session, rest of the line) whose docstring is its line in /help, and its row in
COMMANDS; where Tab should complete what follows it, a row in ARGUMENTS. What goes wrong is raised as one of
our errors; the session says it and goes on.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from edgellm.cli import archive
from edgellm.cli.conversation import Conversation
from edgellm.cli.talk import stats_line
from edgellm.errors import UsageError
from edgellm.sampling import SamplingParams

FENCE = '"""'
_NOT_HERE = (
    "n",
    "logprobs",
    "logit_bias",
    "stop_token_ids",
)  # nobody would type these, or see their effect
PARAMETERS = [field.name for field in fields(SamplingParams) if field.name not in _NOT_HERE]
_WORDS = {"none": None, "true": True, "on": True, "false": False, "off": False}


@dataclass
class Session:
    """What the commands work on."""

    conversation: Conversation
    stats: bool = False
    over: bool = False
    draft: str = ""  # stands at the next prompt already, to be edited
    again: str | None = None  # is asked without a prompt


def _help(session: Session, rest: str) -> None:
    """this list"""
    for name, command in COMMANDS.items():
        print(f"  {name:<10} {command.__doc__}")
    print(f"  Alt-Enter or {FENCE} for several lines (after {FENCE} a / is no command)")
    print("  Tab completes; Ctrl-C stops an answer; Ctrl-D leaves")


def _bye(session: Session, rest: str) -> None:
    """leave"""
    session.over = True


def _clear(session: Session, rest: str) -> None:
    """forget the conversation"""
    session.conversation.clear()
    print("(the conversation is forgotten)")


def _system(session: Session, rest: str) -> None:
    """TEXT: set the system message; without TEXT, remove it"""
    session.conversation.system = rest or None
    print("(the system message is set)" if rest else "(there is no system message)")


def _set(session: Session, rest: str) -> None:
    """NAME VALUE: set a sampling parameter; without them, list all"""
    name, _, value = rest.partition(" ")
    if not name:
        for known in PARAMETERS:
            print(f"  {known:<18} {_present(session, known)}")
        return
    name = name.replace("-", "_").lower()
    if name not in PARAMETERS:
        raise UsageError(
            f"there is no parameter {name!r}{_nearest(name, PARAMETERS)}; /set lists them", "name"
        )
    if not value.strip():
        raise UsageError(f"/set {name} wants a value; it is {_present(session, name)} now", name)
    session.conversation.change(**{name: _value(name, value.strip())})
    print(f"({name} is {_present(session, name)})")


def _present(session: Session, name: str) -> str:
    value = getattr(session.conversation.params, name)
    return "none" if value is None or value == () else json.dumps(value, ensure_ascii=False)


def _value(name: str, text: str) -> Any:
    """A number, a list, none, true or on, false or off; anything else is text."""
    if text.lower() in _WORDS:
        value = _WORDS[text.lower()]
        return () if name == "stop" and value is None else value
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if name == "stop" and not isinstance(value, str | list) else value


def _save(session: Session, rest: str) -> None:
    """NAME: keep the conversation in a file; a name with a / or .json is a path"""
    path = archive.place(rest)
    archive.save(session.conversation, path)
    print(f"(saved as {path})")


def _load(session: Session, rest: str) -> None:
    """NAME: go on with a kept conversation; without NAME, list what there is"""
    if not rest:
        names = archive.names()
        print("\n".join(f"  {name}" for name in names) if names else "(nothing is saved)")
        return
    kept_from = archive.load(session.conversation, archive.place(rest))
    print(f"({len(session.conversation.turns)} messages, kept from {kept_from})")


def _retry(session: Session, rest: str) -> None:
    """ask the last message once more"""
    conversation = session.conversation
    answered = conversation.unanswered is None
    session.again = conversation.take_back()
    if not answered:
        return
    if not conversation.params.temperature:
        print("(at temperature 0 the answer is the same; /set temperature 0.7 changes that)")
    elif conversation.params.seed is not None:
        conversation.change(seed=conversation.params.seed + 1)
        print(f"(seed {conversation.params.seed})")


def _edit(session: Session, rest: str) -> None:
    """take the last message back, to change it and ask again"""
    text = session.conversation.take_back()
    session.draft = f"{FENCE}{text}{FENCE}" if text.lstrip().startswith(("/", FENCE)) else text


def _undo(session: Session, rest: str) -> None:
    """take the last message and its answer back"""
    session.conversation.undo()
    print("(the last message and its answer are taken back)")


def _stats(session: Session, rest: str) -> None:
    """show counts and speeds after each answer, or no longer"""
    session.stats = not session.stats
    last = session.conversation.last
    if session.stats and last is not None and last.timings is not None:
        print(stats_line(last.timings))
    print("(stats are on)" if session.stats else "(stats are off)")


COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "/help": _help,
    "/bye": _bye,
    "/clear": _clear,
    "/system": _system,
    "/set": _set,
    "/save": _save,
    "/load": _load,
    "/retry": _retry,
    "/edit": _edit,
    "/undo": _undo,
    "/stats": _stats,
}
ARGUMENTS: dict[str, Callable[[], list[str]]] = {
    "/set": lambda: PARAMETERS,
    "/save": archive.names,
    "/load": archive.names,
}


def do(session: Session, line: str) -> None:
    """Run the command that a line begins with. Raises UsageError for one that there is not."""
    name, _, rest = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(
            f"there is no {name}{_nearest(name, COMMANDS)}; /help lists what there is", "command"
        )
    command(session, rest.strip())


def _nearest(name: str, known: Any) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
