"""Conversations in files: JSON, in the folder `chats` of the edgellm home unless a path is given."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from edgellm.cli.conversation import Conversation
from edgellm.config import load_config
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.sampling import SamplingParams

_FORMAT = "edgellm-chat-1"
_MAX_BYTES = 2**26  # far more than any context holds


def place(name: str) -> Path:
    """The file that a name stands for. Raises UsageError for none, or one that no file can have."""
    if not name:
        raise UsageError("give a name for the conversation, such as: /save monday", "name")
    if "\0" in name:
        raise UsageError(f"{name!r} has a null character in it, which no file's name can have", "name")
    if name.endswith(".json") or "/" in name or os.sep in name:
        return Path(os.path.expanduser(name))
    return _folder() / f"{name}.json"


def names() -> list[str]:
    """The names of what is kept in the home."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def _folder() -> Path:
    return load_config().home / "chats"


def save(conversation: Conversation, path: Path) -> None:
    """Write the whole conversation, or nothing. Raises EdgeLLMError where that fails.

    A conversation that was kept under the name is replaced; any other file is not.
    """
    text = json.dumps({"format": _FORMAT, **conversation.as_json()}, ensure_ascii=False, indent=1)
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise EdgeLLMError(f"the conversation could not be saved as {path}: {error.strerror}") from None
    except ValueError as error:
        raise EdgeLLMError(f"the conversation could not be saved as {path}: {error}") from None


def _check_replaceable(path: Path) -> None:
    if os.path.lexists(path):
        try:
            _read(path)
        except EdgeLLMError as error:
            raise EdgeLLMError(f"{error}, and is not replaced by one: give another name") from None


def _replace(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".saving.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def load(conversation: Conversation, path: Path) -> str:
    """Let the conversation be the kept one; the name of the model it was held with.

    Raises EdgeLLMError for a file that cannot be read or holds something else; nothing is changed then.
    """
    try:
        kept = _read(path)
    except FileNotFoundError:
        raise EdgeLLMError(f"there is no conversation {path}; /load alone lists what is saved") from None
    except OSError as error:
        raise EdgeLLMError(f"{path} could not be read: {error.strerror}") from None
    turns, system, params = _checked(kept, path)
    conversation.take(turns, system, params)
    return str(kept.get("model", "an unknown model"))


def _read(path: Path) -> dict[str, Any]:
    """What a file of ours holds. Raises EdgeLLMError for any other, OSError where it cannot be read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise EdgeLLMError(f"{path} holds no conversation: it is no file of at most {_MAX_BYTES:,} bytes")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise EdgeLLMError(f"{path} holds no conversation: it is not JSON") from None
    if not isinstance(kept, dict) or kept.get("format") != _FORMAT:
        raise EdgeLLMError(f"{path} holds no conversation of `edgellm chat`")
    return kept


def _checked(kept: dict[str, Any], path: Path) -> tuple[list[dict[str, Any]], str | None, SamplingParams]:
    turns, system, params = kept.get("messages"), kept.get("system"), kept.get("params")
    roles = [t.get("role") for t in turns if isinstance(t, dict)] if isinstance(turns, list) else []
    in_turn = all(role == ("user", "assistant")[i % 2] for i, role in enumerate(roles))
    if not isinstance(turns, list) or len(roles) != len(turns) or len(turns) % 2 or not in_turn:
        raise EdgeLLMError(f"the messages in {path} are not a user's and an assistant's in turn")
    if not all(isinstance(turn.get("content"), str) for turn in turns):
        raise EdgeLLMError(f"a message in {path} has no text")
    if not isinstance(system, str | None) or not isinstance(params, dict):
        raise EdgeLLMError(f"{path} has a system message or parameters that are none")
    try:
        return [{"role": t["role"], "content": t["content"]} for t in turns], system, SamplingParams(**params)
    except (TypeError, UsageError) as error:
        raise EdgeLLMError(f"the parameters in {path} are not valid: {error}") from None
