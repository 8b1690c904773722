"""The backend itself: dequantized weights, plain arrays for pages and slots, and the walk."""

from __future__ import annotations

import math

import numpy as np

from edgellm import quants
from edgellm.backends.base import (
    PAGE_SIZE,
    Backend,
    BackendConfig,
    Batch,
    LoadProgress,
    WeightFile,
    most_positions,
)
from edgellm.backends.reference.step import F32, OPS, Step
from edgellm.backends.rope import RopeTable
from edgellm.errors import UnsupportedError
from edgellm.graph import Graph, Weight, ops

_KV_DTYPES = {"f32": np.float32, "f16": np.float16, "q8_0": np.float32}  # q8_0: its values, as rounded


class ReferenceBackend(Backend):
    """Runs any graph in f32; keys and values are rounded as the KV type says."""

    def __init__(
        self, graph: Graph, file: WeightFile, config: BackendConfig, progress: LoadProgress | None = None
    ) -> None:
        super().__init__(graph, file, config)
        self._weights = {name: _dequantize(file, w) for name, w in graph.weights().items()}
        pages = (config.num_pages, PAGE_SIZE)
        k, v = (_KV_DTYPES[kind] for kind in config.kv_types)
        self.keys = [np.zeros((*pages, c.num_kv_heads, c.key_dim), k) for c in graph.caches]
        self.values = [np.zeros((*pages, c.num_kv_heads, c.value_dim), v) for c in graph.caches]
        self.states = [np.zeros((config.num_slots, *s.shape), np.float32) for s in graph.states]
        self._ropes: dict[tuple[ops.RopeConfig, str], RopeTable] = {}

    @classmethod
    def needs(cls, graph: Graph, file: WeightFile, config: BackendConfig) -> tuple[int, int]:
        weights = sum(4 * math.prod(w.shape) for w in graph.weights().values())
        k, v = (np.dtype(_KV_DTYPES[kind]).itemsize for kind in config.kv_types)
        each = sum(c.num_kv_heads * (k * c.key_dim + v * c.value_dim) for c in graph.caches)
        return weights, PAGE_SIZE * each

    def execute(self, batch: Batch) -> F32:
        step = Step(self, batch)
        for node in self.graph.nodes:
            function = OPS.get(type(node.op))
            if function is None:
                raise UnsupportedError(f"the reference backend has no {type(node.op).__name__}")
            result = function(step, node, *(step.values[v] for v in node.inputs))
            for value, array in zip(
                node.outputs, result if isinstance(result, tuple) else (result,), strict=True
            ):
                step.values[value] = array
        assert self.graph.output is not None
        return np.ascontiguousarray(step.values[self.graph.output], np.float32)

    def weight(self, weight: Weight) -> F32:
        """A tensor, dequantized."""
        return self._weights[weight.name]

    def rope_table(self, config: ops.RopeConfig, factors: Weight | None) -> RopeTable:
        """The table of angles for these settings, one for all layers that share them."""
        key = (config, factors.name if factors else "")
        if key not in self._ropes:
            values = self.weight(factors) if factors else None
            self._ropes[key] = RopeTable(config, values, most_positions(self.graph, self.config))
        return self._ropes[key]

    def copy_page(self, source: int, target: int) -> None:
        for pool in (*self.keys, *self.values):
            pool[target] = pool[source]

    def memory(self) -> dict[str, int]:
        return {
            "weights": sum(w.nbytes for w in self._weights.values()),
            "kv_cache": sum(p.nbytes for p in (*self.keys, *self.values, *self.states)),
            "scratch": 0,
        }


def _dequantize(file: WeightFile, weight: Weight) -> F32:
    kind = quants.get(file.tensors[weight.name].type)
    return kind.dequantize(file.data(weight.name)).reshape(weight.shape)
