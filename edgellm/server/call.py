"""A checked call of a completion endpoint, and its answer: whole, or as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from edgellm.engine.request import Chunk, Finished, Request, Timings, TokenLogprob
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.sampling import SamplingParams
from edgellm.server.answering import Answering, collect
from edgellm.server.errors import body_of
from edgellm.server.fields import Checked
from edgellm.server.model import ServedModel
from edgellm.server.shapes import Envelope, Json, Offsets, Shape, timings_json, usage
from edgellm.server.streaming import DONE, PING, event

IGNORED_HEADER = "x-edgellm-ignored"


@dataclass(frozen=True)
class Call:
    """A checked call: what to run, and how to say what came of it."""

    model: ServedModel
    shape: Shape
    fields: Checked
    prompts: list[list[int]]
    params: SamplingParams

    @property
    def streams(self) -> bool:
        return bool(self.fields.get("stream", False))

    @property
    def headers(self) -> dict[str, str]:
        """Names the fields that were ignored."""
        unknown = self.fields.unknown[:50]  # half a surrogate can be in JSON, but in no header
        names = ", ".join(quote(name[:100], safe="", errors="replace") for name in unknown)
        return {IGNORED_HEADER: names} if names else {}

    def offsets(self) -> list[Offsets]:
        """Of each choice, from its text's beginning."""
        return [Offsets(self.model.tokenizer, ids[-1]) for ids in self.prompts for _ in range(self.params.n)]

    def start(self) -> Answering:
        """Hand the requests to the engine.

        Raises what `Engine.submit` raises, and UsageError for more prompts than it ever takes.
        """
        most = self.model.engine.max_requests
        if len(self.prompts) > most:
            raise UsageError(
                f"there are {len(self.prompts)} prompts, and this server takes {most} at once: send fewer, "
                "or start it with a larger --queue",
                self.shape.prompt_field,
            )
        requests = [Request(ids, self.params) for ids in self.prompts]
        try:
            return Answering(self.model.engine, requests)
        except UsageError as error:
            error.param = self.shape.prompt_field if error.param == "prompt" else error.param
            raise


async def whole(call: Call, answering: Answering) -> Json:
    answers = await collect(answering, len(call.prompts), call.params.n)
    choices = [
        call.shape.whole(i, choice, _logprobs(call, choice.logprobs, offsets))
        for i, (choice, offsets) in enumerate(zip(answers.choices, call.offsets(), strict=True))
    ]
    return Envelope(call.shape, call.model.name).whole(choices, answers.timings)


def _logprobs(call: Call, found: Sequence[TokenLogprob], offsets: Offsets) -> Json | None:
    if call.params.logprobs is None:
        return None
    return call.shape.logprobs(call.model.tokenizer, found, offsets)


async def stream(call: Call, answering: Answering, ping_seconds: float) -> AsyncGenerator[bytes, None]:
    """An answer as server-sent events, with a comment after every `ping_seconds` of silence."""
    writer = _StreamWriter(call)
    for item in writer.opening():
        yield item
    try:
        while answering.running:
            numbered = await answering.next(ping_seconds)
            if numbered is None:
                yield PING
            elif isinstance(numbered.event, Chunk):
                for item in writer.chunk(numbered.request, numbered.event):
                    yield item
            elif isinstance(numbered.event, Finished):
                for item in writer.finished(numbered.event.timings):
                    yield item
    except EdgeLLMError as error:
        # The status is sent: the error travels in the stream, where OpenAI's clients look for it.
        yield event(body_of(error))
        return
    for item in writer.closing():
        yield item


class _StreamWriter:
    """The events of one stream. A request's last chunk waits for its timings, which it carries."""

    def __init__(self, call: Call) -> None:
        self._call, self._shape = call, call.shape
        self._envelope = Envelope(call.shape, call.model.name)
        options = call.fields.get("stream_options", {})
        # With usage asked for, every chunk but the last has `"usage": null`.
        self._usage: Json = {"usage": None} if options.get("include_usage", False) else {}
        self._offsets = call.offsets()
        self._timings: list[Timings] = []
        self._held: Json | None = None

    def opening(self) -> list[bytes]:
        choices = [self._shape.opening(i) for i in range(len(self._offsets))]
        return [self._event([c]) for c in choices if c is not None]

    def chunk(self, request: int, chunk: Chunk) -> list[bytes]:
        if not (chunk.text or chunk.finish_reason or chunk.logprobs):
            return []
        index = request * self._call.params.n + chunk.index
        logprobs = _logprobs(self._call, chunk.logprobs, self._offsets[index])
        choice = self._shape.delta(index, chunk.text, logprobs, chunk.finish_reason)
        if chunk.finish_reason is None:
            return [self._event([choice])]
        earlier, self._held = self._held, choice
        return [] if earlier is None else [self._event([earlier])]

    def finished(self, timings: Timings) -> list[bytes]:
        self._timings.append(timings)
        held, self._held = self._held, None
        return [] if held is None else [self._event([held], timings=timings_json([timings]))]

    def closing(self) -> list[bytes]:
        if not self._usage:
            return [DONE]
        totals = {"usage": usage(self._timings), "timings": timings_json(self._timings)}
        return [event(self._envelope.chunk([], **totals)), DONE]

    def _event(self, choices: list[Json], **more: Any) -> bytes:
        return event(self._envelope.chunk(choices, **self._usage, **more))
