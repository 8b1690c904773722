"""Loading a model, with its progress shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgellm.cli.progress import ProgressShow
from edgellm.loading import LoadedModel, load
from edgellm.server.model import ServedModel

_QUEUE = 4  # a request that was just interrupted may still count when the next one comes


def load_model(
    name: str,
    threads: int | None,
    ctx: int | None,
    max_sequences: int,
    queue: int,
    show: ProgressShow,
    low_memory: bool = False,
    kv_type: str = "f16",
) -> ServedModel:
    """Find, pull and load a model. Raises what `edgellm.loading.load` raises."""
    loaded = load(
        name,
        threads=threads,
        context_length=ctx,
        max_sequences=max_sequences,
        max_queue=queue,
        kv_type=kv_type,
        low_memory=low_memory,
        progress=show,
    )
    return served(loaded)


def served(loaded: LoadedModel) -> ServedModel:
    """A loaded model as commands and server see it; a path is called by its file's name."""
    name = Path(loaded.name).stem if loaded.name.lower().endswith(".gguf") else loaded.name
    return ServedModel(name, loaded.engine, loaded.tokenizer, loaded.chat_prompt, loaded.defaults)


@contextmanager
def open_model(
    name: str,
    threads: int | None,
    ctx: int | None,
    max_sequences: int,
    low_memory: bool = False,
    kv_type: str = "f16",
) -> Iterator[tuple[ServedModel, float]]:
    """A model and the seconds it took to load; closed afterwards."""
    began = time.perf_counter()
    with ProgressShow() as show:
        model = load_model(name, threads, ctx, max_sequences, _QUEUE, show, low_memory, kv_type)
    try:
        yield model, time.perf_counter() - began
    finally:
        model.engine.close()
