"""What completions look like on the wire: chat and text, whole and in chunks, as OpenAI's API has them.

How to add one: a class with `Shape`'s methods.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from edgellm.engine.request import Timings, TokenLogprob
from edgellm.server.answering import Choice
from edgellm.server.model import ServedTokenizer
from edgellm.tokenizers.decoder import IncrementalDecoder

Json = dict[str, Any]
LEAST_LOGPROB = -9999.0  # stands for minus infinity, which JSON does not have


class Shape(Protocol):
    """One kind of completion."""

    prompt_field: str
    prefix: str
    object: str
    chunk_object: str

    def opening(self, index: int) -> Json | None:
        """The choice of the chunk that opens a stream."""

    def delta(self, index: int, text: str, logprobs: Json | None, finish_reason: str | None) -> Json:
        """A choice in a chunk."""

    def whole(self, index: int, choice: Choice, logprobs: Json | None) -> Json:
        """A choice in a whole answer."""

    def logprobs(self, tokenizer: ServedTokenizer, found: Sequence[TokenLogprob], offsets: Offsets) -> Json:
        """Log probabilities of the answer's next tokens; `offsets` has seen those before."""


class ChatShape:
    """`/v1/chat/completions`."""

    prompt_field = "messages"
    prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def opening(self, index: int) -> Json:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, index: int, text: str, logprobs: Json | None, finish_reason: str | None) -> Json:
        delta = {"content": text} if text else {}
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}

    def whole(self, index: int, choice: Choice, logprobs: Json | None) -> Json:
        message = {"role": "assistant", "content": choice.text, "refusal": None}
        return {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.finish_reason,
        }

    def logprobs(self, tokenizer: ServedTokenizer, found: Sequence[TokenLogprob], offsets: Offsets) -> Json:
        def entry(token_id: int, logprob: float) -> Json:
            data = tokenizer.token_bytes(token_id)
            return {"token": _as_text(data), "logprob": _finite(logprob), "bytes": list(data)}

        content = [
            {**entry(f.token_id, f.logprob), "top_logprobs": [entry(*top) for top in f.top]} for f in found
        ]
        return {"content": content, "refusal": None}


class TextShape:
    """`/v1/completions`."""

    prompt_field = "prompt"
    prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def opening(self, index: int) -> None:
        return None

    def delta(self, index: int, text: str, logprobs: Json | None, finish_reason: str | None) -> Json:
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def whole(self, index: int, choice: Choice, logprobs: Json | None) -> Json:
        return self.delta(index, choice.text, logprobs, choice.finish_reason)

    def logprobs(self, tokenizer: ServedTokenizer, found: Sequence[TokenLogprob], offsets: Offsets) -> Json:
        tokens = [tokenizer.token_bytes(f.token_id) for f in found]
        tops = [{_as_key(tokenizer.token_bytes(i)): _finite(p) for i, p in f.top} for f in found]
        return {
            "tokens": [_as_key(data) for data in tokens],
            "token_logprobs": [_finite(f.logprob) for f in found],
            "top_logprobs": tops,
            "text_offset": [offsets.of(f.token_id) for f in found],
        }


class Offsets:
    """Where each token of an answer begins in its text, in characters; a token may be a part of one.

    `after` is the prompt's last token.
    """

    def __init__(self, tokenizer: ServedTokenizer, after: int) -> None:
        self._decoder = IncrementalDecoder(tokenizer, after=after)
        self._characters = 0

    def of(self, token_id: int) -> int:
        """The offset of the next token."""
        begin = self._characters
        self._characters += len(self._decoder.push(token_id))
        return begin


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _as_key(data: bytes) -> str:
    """A token as a name of its own: its text, or bytes that are none, as OpenAI writes them."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _finite(logprob: float) -> float:
    return logprob if math.isfinite(logprob) else LEAST_LOGPROB


class Envelope:
    """What all chunks of one answer share: id, time, model."""

    def __init__(self, shape: Shape, model: str) -> None:
        self._shape = shape
        self._head = {"id": shape.prefix + uuid.uuid4().hex, "created": int(time.time()), "model": model}

    def whole(self, choices: list[Json], timings: Sequence[Timings]) -> Json:
        body = {**self._head, "object": self._shape.object, "choices": choices}
        return {**body, "usage": usage(timings), "timings": timings_json(timings)}

    def chunk(self, choices: list[Json], **more: Any) -> Json:
        return {**self._head, "object": self._shape.chunk_object, "choices": choices, **more}


def usage(timings: Iterable[Timings]) -> Json:
    """Token counts, summed over the requests of a call."""
    known = list(timings)
    prompt = sum(t.prompt_tokens for t in known)
    completion = sum(t.completion_tokens for t in known)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(t.cached_tokens for t in known)},
    }


def timings_json(timings: Sequence[Timings]) -> Json | None:
    """Seconds and speeds of the call's slowest request; an extension of ours."""
    if not timings:
        return None
    slowest = max(timings, key=lambda t: t.ttft_s + t.decode_s)
    names = ("queued_s", "prefill_s", "decode_s", "ttft_s", "prompt_tps", "decode_tps")
    return {name: round(getattr(slowest, name), 6) for name in names}
