"""From a model's name to what answers: file, graph, tokenizer, backend, engine."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgellm import backends, hub, models
from edgellm.backends.base import (
    KV_TYPES,
    PAGE_SIZE,
    Backend,
    BackendConfig,
    LoadProgress,
    slot_bytes,
)
from edgellm.chat import ChatTemplate, default_template
from edgellm.config import MAX_THREADS, load_config
from edgellm.early import Watch
from edgellm.engine import Engine, EngineConfig
from edgellm.engine.check import pools
from edgellm.errors import TemplateError, UnsupportedError, UsageError
from edgellm.gguf import GGUFFile, open_gguf
from edgellm.graph import Graph
from edgellm.memory import CachePlan, available_memory, give_back, plan_cache
from edgellm.sampling import SamplingParams
from edgellm.tokenizers import Tokenizer

_LOG = logging.getLogger("edgellm")
_MAX_TOKENS = 256  # of a step: a prefill chunk of 100 ms is seldom longer
_MAX_EMBED_TOKENS = 2048  # of a step that takes whole texts
_MAX_OUTPUTS = 64
_SAMPLING_KEYS = {  # of general.sampling.*, and the fields they set
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repeat_penalty",
}


@dataclass
class LoadedModel:
    """A model that answers. `defaults`: the sampling fields that its file, else the catalogue, recommends."""

    name: str
    path: Path
    file: GGUFFile
    graph: Graph
    backend: Backend
    engine: Engine
    defaults: Mapping[str, Any]
    _tokenizer: Tokenizer | UnsupportedError = field(repr=False)
    _template: ChatTemplate | None = field(default=None, repr=False)

    @property
    def tokenizer(self) -> Tokenizer:
        """The file's tokenizer. Raises UnsupportedError where it has none that edgellm knows."""
        if isinstance(self._tokenizer, UnsupportedError):
            raise self._tokenizer
        return self._tokenizer

    @property
    def template(self) -> ChatTemplate:
        """The file's chat template, or ChatML where it has none. Raises TemplateError for a broken one."""
        if self._template is None:
            source, t = self.tokenizer.chat_template, self.tokenizer
            self._template = ChatTemplate(source, t.bos_text, t.eos_text) if source else default_template()
        return self._template

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        **extra: Any,
    ) -> list[int]:
        """The token ids of a conversation, ready for the answer.

        Special tokens are added as the file asks, unless the template has written the begin of text itself.
        """
        text = self._render(messages, tools, extra)
        begins = bool(self.tokenizer.bos_text) and text.startswith(self.tokenizer.bos_text)
        ids = self.tokenizer.encode(text, add_special=not begins, parse_special=True)
        return ids[:-1] if self._ends_too_early(ids, added=not begins) else ids

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        extra: Mapping[str, Any],
    ) -> str:
        """The prompt's text. Where a template chokes on tool calls without words, they get empty ones."""
        try:
            return self.template.render(messages, tools, add_generation_prompt=True, **extra)
        except TemplateError:
            worded = [_with_words(m) for m in messages]
            if worded == list(messages):
                raise
            return self.template.render(worded, tools, add_generation_prompt=True, **extra)

    def _ends_too_early(self, ids: list[int], added: bool) -> bool:
        """Whether encoding put an end of text behind the words that the answer should follow."""
        return added and self.tokenizer.add_eos and len(ids) > 1 and ids[-1] == self.tokenizer.eos_id

    def default_params(self) -> SamplingParams:
        """The recommended sampling, else ours."""
        return SamplingParams(**self.defaults)

    def close(self) -> None:
        """Stop the engine and give everything back."""
        self.engine.close()
        self.file.close()


def load(
    model: str | Path,
    *,
    backend: str = "auto",
    threads: int | None = None,
    context_length: int | None = None,
    kv_type: str | tuple[str, str] = "f16",
    max_sequences: int = 8,
    max_queue: int = 64,
    memory_limit: int | None = None,
    low_memory: bool = False,
    progress: LoadProgress | None = None,
) -> LoadedModel:
    """Find a model (pulling it where it is not there), load it, and start its engine.

    With `low_memory` weights stay in the mapped file: the same tokens, several times slower. `progress` is
    told what is being done, how many steps of it are done, and how many there are (0: unknown).
    Raises ModelNotFoundError, DownloadError, FormatError, UnsupportedError, MemoryLimitError or UsageError.
    """
    kv = _kv_pair(kv_type)
    _check_counts(
        threads=threads,
        context_length=context_length,
        max_sequences=max_sequences,
        memory_limit=memory_limit,
    )
    load_config()  # what is wrong with the environment is told, whether the backend reads it or not
    backend_class = backends.find(backend)
    sizes = partial(
        configure,
        threads=threads,
        context_length=context_length,
        kv_type=kv,
        max_sequences=max_sequences,
        memory_limit=memory_limit,
        low_memory=low_memory,
        backend=backend_class,
    )

    def prepare(beginning: GGUFFile) -> None:
        graph = models.build(beginning)
        backend_class.prepare(graph, beginning, sizes(graph, beginning, available=None)[1])

    path = hub.resolve(model, Watch(model, prepare, progress))
    file = open_gguf(path)
    try:
        graph = models.build(file)
        plan, config = sizes(graph, file, available=available_memory())
        settings = EngineConfig(max_sequences, max_queue, plan.context_length, salt=":".join(kv).encode())
        tokenizer = _tokenizer(file)
        give_back()  # making a tokenizer of 128 thousand tokens takes 35 MB more than it keeps
        loaded = backend_class(graph, file, config, progress)
        engine = Engine(loaded, tokenizer if isinstance(tokenizer, Tokenizer) else None, settings)
    except BaseException:
        file.close()
        raise
    defaults = _defaults(file) or hub.recommended_sampling(model)
    return LoadedModel(str(model), path, file, graph, loaded, engine, defaults, tokenizer)


def _with_words(message: Mapping[str, Any]) -> Mapping[str, Any]:
    silent = message.get("tool_calls") and message.get("content") is None
    return {**message, "content": ""} if silent else message


def _kv_pair(kv_type: Any) -> tuple[str, str]:
    """The types of keys and of values, from a name, or a pair of names (with a comma, as one text)."""
    names = kv_type.split(",") if isinstance(kv_type, str) and "," in kv_type else kv_type
    pair = tuple(names) if isinstance(names, tuple | list) else (names, names)
    if len(pair) != 2 or not all(isinstance(name, str) for name in pair):
        known = ", ".join(KV_TYPES)
        raise UsageError(f"kv_type is {kv_type!r}: it must be one of {known}, or a pair of them", "kv_type")
    for name in pair:
        if name not in KV_TYPES:
            raise UsageError(f"kv_type {name!r} is not one of {', '.join(KV_TYPES)}", "kv_type")
    return pair[0], pair[1]


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise UsageError(f"{name} is {value!r}: it must be a whole number of at least 1", name)
        if name == "threads" and value is not None and value > MAX_THREADS:
            raise UsageError(f"threads is {value}, and may be {MAX_THREADS} at most", "threads")


def configure(
    graph: Graph,
    file: GGUFFile,
    *,
    available: int | None,
    threads: int | None = None,
    context_length: int | None = None,
    kv_type: str | tuple[str, str] = "f16",
    max_sequences: int = 8,
    memory_limit: int | None = None,
    low_memory: bool = False,
    backend: type[Backend] = Backend,
) -> tuple[CachePlan, BackendConfig]:
    """The sizes that a model is loaded with: its context and pages, and with them the backend's.

    `available` bytes may be used; None sets no bound. `backend` says how many weights and pages take. Raises
    MemoryLimitError, and UsageError for a context longer than the model's.
    """
    if context_length is not None and context_length > graph.context_length:
        raise UsageError(
            f"context_length is {context_length}, but the model was made for {graph.context_length} at most",
            "context_length",
        )
    tokens = _MAX_EMBED_TOKENS if pools(graph) else _MAX_TOKENS
    config = BackendConfig(
        kv_type=_kv_pair(kv_type),
        num_slots=max_sequences,
        max_tokens=max(min(tokens, graph.context_length), max_sequences),
        max_outputs=max(_MAX_OUTPUTS, max_sequences),
        max_sequences=max_sequences,
        threads=threads,
        low_memory=low_memory,
    )
    weights, page = backend.needs(graph, file, config)
    least_weights, _ = backend.needs(graph, file, replace(config, low_memory=True))
    plan = plan_cache(
        page_size=PAGE_SIZE,
        page_bytes=page,
        other_bytes=weights + scratch_estimate(graph, config) + max_sequences * slot_bytes(graph),
        model_context=graph.context_length,
        context_length=context_length,
        max_sequences=max_sequences,
        memory_limit=memory_limit,
        available=available,
        low_memory_helps=least_weights < weights,
    )
    return plan, replace(config, num_pages=plan.num_pages)


def scratch_estimate(graph: Graph, config: BackendConfig) -> int:
    """About how many bytes a step computes in: logits, and eight of the widest activations."""
    widths: list[int] = [v.width for node in graph.nodes for v in node.outputs if v is not graph.output]
    rows = 0 if graph.output is None else config.max_outputs * graph.output.width
    return 4 * int(rows + 8 * config.max_tokens * max(widths, default=0))


def _tokenizer(file: GGUFFile) -> Tokenizer | UnsupportedError:
    if "tokenizer.ggml.model" not in file.metadata:
        return UnsupportedError(f"{file.path} has no tokenizer; give token ids instead of text")
    try:
        return Tokenizer(file)
    except UnsupportedError as error:
        return error


def _defaults(file: GGUFFile) -> dict[str, Any]:
    """The sampling fields that the file recommends; one that makes no sense is left out, with a warning."""
    found: dict[str, Any] = {}
    for key, name in _SAMPLING_KEYS.items():
        value = file.metadata.get(f"general.sampling.{key}")
        if value is None:
            continue
        try:
            SamplingParams(**{name: value})
        except UsageError as error:
            _LOG.warning("%s: general.sampling.%s is ignored: %s", file.path, key, error)
        else:
            found[name] = value
    return found
