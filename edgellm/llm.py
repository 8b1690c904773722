"""A model in this process: `LLM` loads it, answers, streams, scores, and gives everything back."""

from __future__ import annotations

import queue
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edgellm.completion import Completion, Gatherer, Stream, wait_for
from edgellm.engine.request import Chunk, Event, Failed, Finished, Request
from edgellm.errors import QueueFullError, UsageError
from edgellm.sampling import SamplingParams

if TYPE_CHECKING:
    from edgellm.backends.base import LoadProgress
    from edgellm.engine import Engine, Stats, Ticket
    from edgellm.tokenizers import Tokenizer

Prompt: TypeAlias = str | Sequence[int]  # text, or token ids
Message: TypeAlias = Mapping[str, Any]


class LLM:
    """A loaded model.

    `model` is a catalogue name (`smollm2:135m`), a path to a .gguf, or `hf.co/USER/REPO[:QUANT]`; one that is
    not there is pulled. `backend` is "auto", "cpu" or "reference"; `threads` None takes the physical cores.
    `context_length` None is the model's, 8192 at most. `kv_type` is "f16", "f32", "q8_0", or a pair (K, V).
    `max_sequences` run at once. `memory_limit` in bytes holds for weights, cache and scratch together; None
    leaves the cache a quarter of the memory that is available. With `low_memory` the weights stay in the
    mapped file: the same tokens, several times slower. `progress(what, done, total)` is told how loading
    goes.

    Raises ModelNotFoundError, DownloadError, FormatError, UnsupportedError, MemoryLimitError or UsageError.
    A context manager; threads may share it. `close` stops at once what runs; an LLM that nobody holds any
    more closes itself after the step that runs. Its memory goes when it is closed and nobody holds it.
    """

    def __init__(
        self,
        model: str | Path = "smollm2:135m",
        backend: str = "auto",
        threads: int | None = None,
        context_length: int | None = None,
        kv_type: str | tuple[str, str] = "f16",
        max_sequences: int = 8,
        memory_limit: int | None = None,
        low_memory: bool = False,
        progress: LoadProgress | None = None,
    ) -> None:
        from edgellm.loading import load  # here, so that importing this module stays quick

        self._loaded = load(
            model,
            backend=backend,
            threads=threads,
            context_length=context_length,
            kv_type=kv_type,
            max_sequences=max_sequences,
            memory_limit=memory_limit,
            low_memory=low_memory,
            progress=progress,
        )
        self._finalizer = weakref.finalize(self, self._loaded.engine.close_soon)
        self._finalizer.atexit = False  # the process takes all with it

    # -- the model ----------------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises UnsupportedError where the file has none that edgellm knows."""
        return self._loaded.tokenizer

    @property
    def engine(self) -> Engine:
        """The engine, for requests with events of their own, while this LLM is held."""
        return self._loaded.engine

    @property
    def context_length(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.engine.context_length

    def stats(self) -> Stats:
        """Counts of the engine: requests, tokens, pages."""
        return self.engine.stats()

    def memory(self) -> dict[str, int]:
        """Bytes held: "weights", "kv_cache", "scratch"."""
        return self._loaded.backend.memory()

    def close(self) -> None:
        """Stop what runs; more than once does nothing. The memory goes once nobody holds this LLM."""
        self._loaded.close()
        self._finalizer.detach()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # -- text and tokens ----------------------------------------------------------------------------------

    def tokenize(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """The token ids of a text; see `Tokenizer.encode`."""
        return self.tokenizer.encode(text, add_special, parse_special)

    def detokenize(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of token ids; see `Tokenizer.decode`."""
        return self.tokenizer.decode(_checked_list(ids, "ids"), skip_special)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        """The logits after each token, f32 [n, vocab_size].

        Raises UsageError for ids that the model does not know, ContextLengthError for too many.
        """
        return self.engine.score(_checked_list(tokens, "tokens"))

    def embed(self, texts: str | Sequence[str]) -> NDArray[np.float32]:
        """A vector of each text, as the model pools it: f32 [n, dim], or [dim] for a single str.

        Raises UsageError for a model that makes no embeddings.
        """
        listed = [texts] if isinstance(texts, str) else _checked_list(texts, "texts")
        vectors = self.engine.embed([self.tokenize(t) for t in listed])
        return np.asarray(vectors[0], np.float32) if isinstance(texts, str) else vectors

    # -- answers ------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompts: str, params: SamplingParams | None = None) -> Completion: ...

    @overload
    def generate(
        self, prompts: Sequence[Any], params: SamplingParams | None = None
    ) -> Completion | list[Completion]: ...

    def generate(
        self, prompts: str | Sequence[Any], params: SamplingParams | None = None
    ) -> Completion | list[Completion]:
        """Go on from a prompt (a str or a list of token ids), or from each of a list of prompts, batched.

        A list of prompts gives a list, in order. What is wrong with one is raised before anything runs.
        Raises UsageError, ContextLengthError, EngineClosedError.
        """
        if _is_one(prompts):
            return self._answer([self._request(prompts, params)])[0]
        return self._answer([self._request(p, params) for p in prompts])

    def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        params: SamplingParams | None = None,
    ) -> Completion:
        """Answer a conversation, through the model's chat template.

        Without `params` those that the model's file recommends hold. Raises TemplateError for messages that
        the template refuses, and what `generate` raises.
        """
        return self._answer([self._chat_request(messages, tools, params)])[0]

    def stream(self, prompt: Prompt | Sequence[Message], *args: Any, **kwargs: Any) -> Stream:
        """The same as `generate` for a prompt, or as `chat` for messages, in chunks as they come.

        Takes the same arguments. What is wrong with them is raised here, not at the first chunk.
        """
        if _is_conversation(prompt):
            return Stream(self.engine, self._chat_request(prompt, *args, **kwargs), self)
        if not _is_one(prompt):
            raise UsageError("stream takes one prompt, or one conversation: call it for each", "prompt")
        return Stream(self.engine, self._request(prompt, *args, **kwargs), self)

    def _request(self, prompt: Any, params: SamplingParams | None = None) -> Request:
        _check_params(params)
        ids = self.tokenize(prompt) if isinstance(prompt, str) else _ids(prompt)
        return Request(ids, params or SamplingParams())

    def _chat_request(
        self, messages: Any, tools: Sequence[Message] | None = None, params: SamplingParams | None = None
    ) -> Request:
        _check_params(params)
        ids = self._loaded.chat_prompt(messages, tools)
        return Request(ids, params or self._loaded.default_params())

    def _answer(self, requests: list[Request]) -> list[Completion]:
        """All answers, in order. An error, or Ctrl-C, cancels the rest."""
        for request in requests:
            self.engine.check(request)
        events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        waiting = deque(enumerate(requests))
        gatherers = [Gatherer(r) for r in requests]
        answers: dict[int, Completion] = {}
        tickets: dict[int, Ticket] = {}
        try:
            while len(answers) < len(requests):
                self._submit_some(waiting, tickets, events)
                index, event = wait_for(events)
                if isinstance(event, Failed):
                    raise event.error
                if isinstance(event, Chunk):
                    gatherers[index].add(event)
                if isinstance(event, Finished):
                    answers[index] = gatherers[index].completion(event.timings)
                    del tickets[index]
        finally:
            for ticket in tickets.values():
                ticket.cancel()
        return [answers[i] for i in range(len(requests))]

    def _submit_some(
        self,
        waiting: deque[tuple[int, Request]],
        tickets: dict[int, Ticket],
        events: queue.SimpleQueue[tuple[int, Event]],
    ) -> None:
        """As many as the engine's queue takes; where others fill it, at least what is running goes on."""
        while waiting:
            index, request = waiting[0]
            try:
                tickets[index] = self.engine.submit(request, partial(_deliver, events, index))
            except QueueFullError:
                if not tickets:
                    raise
                return
            waiting.popleft()


def _deliver(events: queue.SimpleQueue[tuple[int, Event]], index: int, event: Event) -> None:
    events.put((index, event))


def _is_one(prompts: Any) -> bool:
    """Whether it is one prompt: a str, or a list of token ids."""
    if isinstance(prompts, str | np.ndarray):
        return True
    listed = _ids(prompts)
    return len(listed) > 0 and all(isinstance(p, int | np.integer) for p in listed)


def _is_conversation(prompt: Any) -> bool:
    return isinstance(prompt, Sequence) and len(prompt) > 0 and isinstance(prompt[0], Mapping)


def _ids(prompt: Any) -> list[Any]:
    if isinstance(prompt, np.ndarray):
        prompt = prompt.tolist()
    if not _is_list(prompt):
        raise UsageError(f"a prompt is a str or a list of token ids, not {type(prompt).__name__}", "prompt")
    return list(prompt)


def _checked_list(values: Any, name: str) -> list[Any]:
    if isinstance(values, np.ndarray):
        values = values.tolist()
    if not _is_list(values):
        raise UsageError(f"{name} is a list, not {type(values).__name__}", name)
    return list(values)


def _is_list(values: Any) -> bool:
    """Whether it is a list of something: the bytes of a text are no token ids."""
    return isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray | memoryview)


def _check_params(params: Any) -> None:
    if params is not None and not isinstance(params, SamplingParams):
        raise UsageError(f"params is a SamplingParams, not {type(params).__name__}", "params")
