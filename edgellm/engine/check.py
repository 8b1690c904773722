"""What is wrong with a request, or with a config for a backend, said before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from edgellm.backends.base import Backend
from edgellm.engine.config import EngineConfig
from edgellm.engine.request import Request
from edgellm.errors import ContextLengthError, UsageError
from edgellm.graph import Graph
from edgellm.graph.graph import S


def pools(graph: Graph) -> bool:
    """Whether the model gives one vector a text instead of logits."""
    return graph.output is not None and graph.output.shape[0] is S


def check_limits(backend: Backend, config: EngineConfig) -> None:
    """UsageError where the backend's largest step is too small for the engine's sequences."""
    sizes = backend.config
    for name in ("max_tokens", "max_outputs", "max_sequences"):
        if getattr(sizes, name) < config.max_sequences:
            raise UsageError(
                f"max_sequences is {config.max_sequences}, but the backend was loaded with {name} "
                f"{getattr(sizes, name)}",
                "max_sequences",
            )
    if backend.graph.states and sizes.num_slots < config.max_sequences:
        raise UsageError(
            f"max_sequences is {config.max_sequences}, but the backend has {sizes.num_slots} state slots",
            "max_sequences",
        )


def check_request(request: Request, graph: Graph, vocab_size: int, context_length: int) -> None:
    """UsageError or ContextLengthError for a request that cannot run."""
    check_prompt(request.prompt_token_ids, graph, vocab_size, context_length)
    for name, ids in (
        ("logit_bias", request.params.logit_bias),
        ("stop_token_ids", request.params.stop_token_ids),
    ):
        _check_ids(ids, vocab_size, name)


def check_prompt(tokens: Sequence[int], graph: Graph, vocab_size: int, context_length: int) -> list[int]:
    """The prompt as a list of ints; UsageError or ContextLengthError where it cannot run."""
    if pools(graph) or not graph.causal:
        raise UsageError("this model makes embeddings; it cannot generate or score text", "model")
    return check_text(tokens, vocab_size, context_length, graph.context_length)


def check_text(
    tokens: Sequence[int], vocab_size: int, context_length: int, longest: int | None = None
) -> list[int]:
    """Token ids as ints; UsageError or ContextLengthError where they are none, unknown or too many.

    `longest` is the context that the model could have been loaded with.
    """
    if len(tokens) == 0:
        raise UsageError("the prompt is empty: give at least one token", "prompt")
    if len(tokens) > context_length:
        longer = (longest or 0) > context_length
        more = ", or load the model with a larger context_length (--ctx)" if longer else ""
        raise ContextLengthError(
            f"the prompt has {len(tokens)} tokens, but the context holds {context_length}: "
            f"shorten the prompt{more}",
            "prompt",
        )
    return _check_ids(tokens, vocab_size, "prompt")


def _check_ids(tokens: Iterable[int], vocab_size: int, param: str) -> list[int]:
    ids = list(tokens)
    for token in ids:
        if isinstance(token, bool) or not isinstance(token, int | np.integer):
            raise UsageError(f"{param} holds {token!r}, which is no token id", param)
        if not 0 <= token < vocab_size:
            raise UsageError(f"{param} holds token id {token}; ids go from 0 to {vocab_size - 1}", param)
    return [int(i) for i in ids]
