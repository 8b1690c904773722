"""What a model file says of itself, and the memory that a conversation with it will hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgellm import models
from edgellm.backends.base import PAGE_SIZE, BackendConfig, page_bytes
from edgellm.cli.footprint import footprint, parameters, process_bytes
from edgellm.errors import EdgeLLMError, UsageError
from edgellm.gguf import GGUFFile
from edgellm.graph import Graph
from edgellm.loading import configure
from edgellm.memory import available_memory


@dataclass(frozen=True)
class Memory:
    """Bytes for one conversation of `context_length` tokens; `process` is Python and the tokenizer.

    `estimated` where no kernel runs the model. `available` is None where the system does not say;
    `most_context` is the longest context that fits, in tokens, 0 for none.
    """

    weights: int
    kv_cache: int
    scratch: int
    process: int
    context_length: int
    estimated: bool
    available: int | None
    most_context: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.scratch + self.process

    @property
    def fits(self) -> bool:
        return self.available is None or self.total <= self.available

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "total": self.total, "fits": self.fits}


@dataclass(frozen=True)
class Contents:
    """What is in a file. `problem` says why edgellm cannot run it; `memory` is None where nobody can tell."""

    path: str
    architecture: str | None
    name: str | None
    parameters: int
    file_bytes: int
    tensor_types: dict[str, int]
    context_length: int | None
    chat_template: bool
    memory: Memory | None
    problem: str | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "memory": self.memory.as_json() if self.memory else None}


def read_contents(file: GGUFFile, **sizes: Any) -> Contents:
    """Look into an open file. `sizes` are what `load` takes: context_length, threads, kv_type, low_memory.

    Raises UsageError for one that makes no sense, such as a context longer than the model's. Whatever else
    is wrong with the model is its `problem`.
    """
    architecture = _value(file, "general.architecture", str)
    types = Counter(info.type.name for info in file.tensors.values())
    memory, problem = _memory(file, sizes)
    return Contents(
        path=str(file.path),
        architecture=architecture,
        name=_value(file, "general.name", str),
        parameters=parameters(file),
        file_bytes=file.file_bytes,
        tensor_types=dict(types.most_common()),
        context_length=_value(file, f"{architecture}.context_length", int),
        chat_template=bool(_value(file, "tokenizer.chat_template", str)),
        memory=memory,
        problem=problem,
    )


def _value(file: GGUFFile, key: str, kind: type) -> Any:
    """A piece of metadata if it is there and of its type, else None."""
    value = file.metadata.get(key)
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _memory(file: GGUFFile, sizes: dict[str, Any]) -> tuple[Memory | None, str | None]:
    try:
        graph = models.build(file)
        plan, config = configure(graph, file, available=None, max_sequences=1, **sizes)
        found, problem = footprint(graph, file, config)
    except UsageError:
        raise
    except EdgeLLMError as error:
        return None, str(error)
    available = available_memory()
    memory = Memory(
        **found,
        process=process_bytes(file),
        context_length=plan.context_length,
        estimated=problem is not None,
        available=available,
        most_context=0,
    )
    return replace(memory, most_context=_most_context(graph, config, memory)), problem


def _most_context(graph: Graph, config: BackendConfig, memory: Memory) -> int:
    """Tokens whose pages fit beside the rest, at most the model's context."""
    if memory.available is None:
        return graph.context_length
    page = page_bytes(graph, config.kv_types)
    rest = memory.total - config.num_pages * page
    pages = max(memory.available - rest, 0) // max(page, 1)
    return min(pages * PAGE_SIZE, graph.context_length) if memory.available >= rest else 0
