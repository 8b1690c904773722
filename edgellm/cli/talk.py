"""One request to a loaded model, and its answer as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from edgellm.cli.texts import printable
from edgellm.engine.request import Chunk, Event, Failed, Finished, FinishReason, Progress, Request, Timings
from edgellm.sampling import SamplingParams

if TYPE_CHECKING:
    from edgellm.server.model import ServedModel

_WAIT_SECONDS = 0.1  # between looks at whether Ctrl-C was pressed, where a wait cannot be interrupted
_QUIET_SECONDS = 1.0  # of a prompt being read, before anything is said about it


@dataclass
class Answer:
    """What has come of a request so far."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    timings: Timings | None = None


def ask(
    model: ServedModel, prompt: list[int], params: SamplingParams, answer: Answer, show: Callable[[str], None]
) -> None:
    """Run a request, fill `answer`, and `show` its text as it comes.

    Raises what the engine raises. KeyboardInterrupt cancels the request and goes on up; `answer` then has
    what came before.
    """
    events: SimpleQueue[Event] = SimpleQueue()
    ticket = model.engine.submit(Request(prompt, params), events.put)
    reading = Reading()
    try:
        while answer.timings is None:
            event = _next(events)
            if isinstance(event, Progress):
                reading.show(event)
            else:
                reading.clear()
                _take(event, answer, show)
    except BaseException:
        ticket.cancel()
        reading.clear()
        raise


class Reading:
    """A line on a terminal's stderr: how much of a long prompt has been read, until the answer comes."""

    def __init__(self) -> None:
        self._after = time.monotonic() + _QUIET_SECONDS
        self._shown = False

    def show(self, progress: Progress) -> None:
        if progress.processed < progress.total and time.monotonic() > self._after and sys.stderr.isatty():
            line = f"reading the prompt: {progress.processed:,} of {progress.total:,} tokens"
            sys.stderr.write(f"\r{line}\x1b[K")
            sys.stderr.flush()
            self._shown = True

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._shown = False


def _next(events: SimpleQueue[Event]) -> Event:
    while True:
        try:
            return events.get(timeout=_WAIT_SECONDS)
        except Empty:
            continue


def _take(event: Event, answer: Answer, show: Callable[[str], None]) -> None:
    if isinstance(event, Failed):
        raise event.error
    if isinstance(event, Finished):
        answer.timings = event.timings
    elif isinstance(event, Chunk):
        answer.text += event.text
        answer.token_ids += event.token_ids
        answer.finish_reason = event.finish_reason or answer.finish_reason
        if event.text:
            show(event.text)


def stats_line(timings: Timings, load_s: float | None = None) -> str:
    """Counts and speeds of an answer, for people."""
    parts = [] if load_s is None else [f"load {load_s:.2f} s"]
    parts += [
        f"prompt {timings.prompt_tokens} tokens ({timings.cached_tokens} cached), {timings.prompt_tps:.1f}/s",
        f"first token {timings.ttft_s:.2f} s",
        f"answer {timings.completion_tokens} tokens, {timings.decode_tps:.1f}/s",
    ]
    return " | ".join(parts)


def write(text: str) -> None:
    """Show a piece of a model's text; a terminal gets no control characters from it."""
    if sys.stdout.isatty():
        text = printable(text, kept="\n\t")
    sys.stdout.write(text)
    sys.stdout.flush()
