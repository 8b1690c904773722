"""The CPU backend: load (lower, compile what is missing, pack), then for each step fill the header and run
the plan.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import (
    Backend,
    BackendConfig,
    Batch,
    LoadProgress,
    WeightFile,
    kv_bytes,
)
from edgellm.backends.cpu import team as teams
from edgellm.backends.cpu.arena import Ref
from edgellm.backends.cpu.header import Header
from edgellm.backends.cpu.lower import Argument, KernelName, Lowering, PlannedOp, Program
from edgellm.backends.cpu.threads import default_threads
from edgellm.backends.cpu.weights import USE_REFERENCE, Packed, WeightStore
from edgellm.backends.profile import Profile
from edgellm.errors import UnsupportedError
from edgellm.graph import Graph, Weight
from edgellm.kernels import layout as L
from edgellm.kernels.cache import begin_kernels, load_kernels


class CPUBackend(Backend):
    """Compiled kernels over packed weights, walked by a team of threads."""

    def __init__(
        self, graph: Graph, file: WeightFile, config: BackendConfig, progress: LoadProgress | None = None
    ) -> None:
        super().__init__(graph, file, config)
        if graph.states:
            raise UnsupportedError(f"models with recurrent state have no kernels yet; {USE_REFERENCE}")
        threads = config.threads or default_threads()
        self._pools = _pools(graph, config)
        store = WeightStore(file, in_file=config.low_memory)
        lowering = Lowering(graph, file, store, config, [int(p.ctypes.data) for p in self._pools], threads)
        program = lowering.run()
        addresses = load_kernels(_kernels(program, store), progress)
        self._team = teams.team_of(threads)
        store.pack(self._team, addresses, progress)
        self._scratch = lowering.arena.lay_out()
        self._store, self._arena, self._keep = store, lowering.arena, program.keep
        self._ropes, self._file = program.ropes, file
        self._mapped: list[NDArray[np.uint8]] = []
        rows_per_item = max(1, L.MAX_PAIRS // program.group)
        self._header = Header(threads, program.kv_heads, rows_per_item, lowering.slots)
        self._args: list[NDArray[np.int64]] = []
        self._plan = teams.Plan(self._assemble(program.ops, addresses), self._header.words)

        assert program.logits is not None
        self._logits = self._arena.array(program.logits.ref, config.max_outputs, program.logits.stride)
        self._ops = program.ops
        self._profile: Profile | None = None
        weakref.finalize(self, self._team.settle).atexit = False

    @classmethod
    def prepare(cls, graph: Graph, file: WeightFile, config: BackendConfig) -> None:
        store = WeightStore(file, in_file=config.low_memory)
        nowhere = [0] * len(graph.caches)
        program = Lowering(graph, file, store, config, nowhere, config.threads or default_threads()).run()
        begin_kernels(_kernels(program, store))

    def _assemble(self, planned: list[PlannedOp], addresses: dict[str, int]) -> NDArray[np.int64]:
        """Ops with addresses in place of refs."""
        table = np.zeros((len(planned), L.OP_WORDS), np.int64)
        for row, op in zip(table, planned, strict=True):
            block = np.array([self._address(a, addresses) for a in op.args], np.int64)
            self._args.append(block)
            at, args = addresses[op.kernel], block.ctypes.data
            row[: L.OP_PARTS + 1] = at, args, op.slot, op.div, op.mul, op.parts
        return table

    def _address(self, argument: Argument, kernels: dict[str, int]) -> int:
        if isinstance(argument, Ref):
            return self._arena.address(argument)
        if isinstance(argument, KernelName):
            return kernels[argument.name]
        if isinstance(argument, Weight):
            self._mapped.append(self._file.data(argument.name))
            return int(self._mapped[-1].ctypes.data)
        return self._store.address(argument) if isinstance(argument, Packed) else argument

    # -- a step ------------------------------------------------------------------------------------

    def execute(self, batch: Batch) -> NDArray[np.float32]:
        began = time.perf_counter()
        positions = self._header.fill(batch)
        for rope in self._ropes:
            rope.ensure(positions)
        self._team.run(self._plan)
        if self._profile is not None and self._plan.times is not None:
            seconds = time.perf_counter() - began
            counts = [int(self._header.words[op.slot]) for op in self._ops]
            self._profile.add(batch, counts, self._plan.times, seconds)
        return self._logits[: len(batch.outputs), : self.graph.vocab_size]

    def drawn(self) -> Sequence[int]:
        return self._header.draws.tokens()

    def profile(self) -> Profile:
        self._plan.trace()
        self._profile = Profile([op.work for op in self._ops])
        return self._profile

    # -- pages and the rest ------------------------------------------------------------------------

    def copy_page(self, source: int, target: int) -> None:
        for pool in self._pools:
            pool[target] = pool[source]

    def memory(self) -> dict[str, int]:
        vectors = sum(a.nbytes for a in self._keep)
        return {
            "weights": self._store.nbytes + vectors,
            "kv_cache": sum(p.nbytes for p in self._pools),
            "scratch": self._scratch + sum(r.rows.nbytes for r in self._ropes),
        }

    def cancel(self) -> None:
        self._team.cancel(self._plan)


def _kernels(program: Program, store: WeightStore) -> list[str]:
    """All that a plan and the packing of its weights call."""
    called = {a.name for op in program.ops for a in op.args if isinstance(a, KernelName)}
    return sorted(called | {op.kernel for op in program.ops} | set(store.kernels()) | set(teams.KERNELS))


def _pools(graph: Graph, config: BackendConfig) -> list[NDArray[np.uint8]]:
    """Each layer's pages, [pages, kv heads, bytes of K and V], in one block of memory: it gets huge pages."""
    k, v = config.kv_types
    shapes = [
        (config.num_pages, c.num_kv_heads, kv_bytes(k, c.key_dim) + kv_bytes(v, c.value_dim))
        for c in graph.caches
    ]
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)]).tolist()
    memory = np.zeros(ends[-1] + 64, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :]
    places = zip(ends, ends[1:], shapes, strict=False)
    return [memory[begin:end].reshape(shape) for begin, end, shape in places]
