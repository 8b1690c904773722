"""`edgellm chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from edgellm.cli.options import DEFAULT, Ctx, KVType, LowMemory, Model, System, Threads, sampling_options
from edgellm.errors import UsageError


@sampling_options
def chat(
    model: Model = DEFAULT,
    system: System = None,
    threads: Threads = None,
    ctx: Ctx = None,
    low_memory: LowMemory = False,
    kv_type: KVType = "f16",
    *,
    sampling: dict[str, Any],
) -> None:
    """Converse with a model. With stdin not a terminal: one user turn a line, answers to stdout."""
    from edgellm.cli.conversation import Conversation
    from edgellm.cli.loading import open_model
    from edgellm.sampling import SamplingParams

    SamplingParams(**sampling)  # what is wrong with them is said before anything is loaded
    with open_model(model, threads, ctx, 1, low_memory, kv_type) as (loaded, _):
        params = SamplingParams(**{**loaded.defaults, **sampling})
        conversation = Conversation(loaded, params, system)
        if sys.stdin.isatty():
            from edgellm.cli.session import session

            session(conversation, loaded.name)
        else:
            _converse_by_line(conversation)


def _converse_by_line(conversation: Any) -> None:
    from edgellm.cli.talk import write

    for line in _lines():
        if line.strip():
            conversation.say(line.rstrip("\r\n"), write)
            print(flush=True)


def _lines() -> Iterator[str]:
    try:
        yield from sys.stdin
    except UnicodeDecodeError as error:
        raise UsageError(f"standard input is not {error.encoding} text: {error.reason}") from None
