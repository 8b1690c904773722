"""What a model will need of memory, told by the code that allocates it, without loading a weight."""

from __future__ import annotations

import math
from collections.abc import Sized

from edgellm.backends.base import BackendConfig, page_bytes, slot_bytes
from edgellm.backends.cpu.lower import Lowering
from edgellm.backends.cpu.threads import default_threads
from edgellm.backends.cpu.weights import WeightStore
from edgellm.errors import UnsupportedError
from edgellm.gguf import GGUFFile
from edgellm.graph import Graph
from edgellm.loading import scratch_estimate

_PYTHON = 40 << 20  # bytes of the interpreter and its libraries, once they have answered
_TOKEN, _MERGE = 280, 100  # and of the tokenizer, measured on six vocabularies of 32 to 152 thousand tokens


def predict(graph: Graph, file: GGUFFile, config: BackendConfig) -> dict[str, int]:
    """Bytes that the cpu backend will hold: "weights", "kv_cache", "scratch", as `memory()` of it says later.

    The graph is lowered as for loading: packed weights, activations and rope tables are laid out, and of the
    file only vectors such as norms are read. Raises UnsupportedError for what the backend cannot run.
    """
    store = WeightStore(file, in_file=config.low_memory)
    addresses = [0] * len(graph.caches)
    lowering = Lowering(graph, file, store, config, addresses, config.threads or default_threads())
    program = lowering.run()
    return {
        "weights": store.nbytes + sum(array.nbytes for array in program.keep),
        "kv_cache": cache_bytes(graph, config),
        "scratch": lowering.arena.lay_out() + sum(rope.rows.nbytes for rope in program.ropes),
    }


def estimate(graph: Graph, file: GGUFFile, config: BackendConfig) -> dict[str, int]:
    """The same bytes, from the file's sizes alone: for a model that no kernel runs."""
    return {
        "weights": sum(file.tensors[name].nbytes for name in graph.weights()),
        "kv_cache": cache_bytes(graph, config),
        "scratch": scratch_estimate(graph, config),
    }


def process_bytes(file: GGUFFile) -> int:
    """About how much the process takes beside what the backend holds: Python, and the tokenizer."""
    arrays = (file.metadata.get(f"tokenizer.ggml.{name}") for name in ("tokens", "merges"))
    tokens, merges = (len(a) if isinstance(a, Sized) else 0 for a in arrays)
    return _PYTHON + _TOKEN * tokens + _MERGE * merges


def cache_bytes(graph: Graph, config: BackendConfig) -> int:
    """Bytes of all pages and state slots."""
    return config.num_pages * page_bytes(graph, config.kv_types) + config.num_slots * slot_bytes(graph)


def parameters(file: GGUFFile) -> int:
    """Elements of all tensors in the file."""
    return sum(math.prod(info.shape) for info in file.tensors.values())


def footprint(graph: Graph, file: GGUFFile, config: BackendConfig) -> tuple[dict[str, int], str | None]:
    """The bytes, and what the cpu backend lacks where they had to be estimated."""
    try:
        return predict(graph, file, config), None
    except UnsupportedError as error:
        return estimate(graph, file, config), str(error)
