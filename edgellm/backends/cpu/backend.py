"""The CPU backend: load (lower, compile what is missing, pack), then for each step fill the header and run
the plan.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgellm import quants
from edgellm.backends.base import (
    PAGE_SIZE,
    Backend,
    BackendConfig,
    Batch,
    LoadProgress,
    SequenceRows,
    WeightFile,
    kv_bytes,
    positions_of,
)
from edgellm.backends.cpu import team as teams
from edgellm.backends.cpu.arena import Ref
from edgellm.backends.cpu.lower import Argument, Lowering, PlannedOp
from edgellm.backends.cpu.threads import default_threads
from edgellm.backends.cpu.weights import Packed, WeightStore
from edgellm.backends.profile import Profile
from edgellm.errors import UnsupportedError
from edgellm.graph import Graph
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels

_ITEMS_PER_THREAD = 4  # chunks of attention that keep a team busy to the end


class CPUBackend(Backend):
    """Compiled kernels over packed weights, walked by a team of threads."""

    def __init__(
        self, graph: Graph, file: WeightFile, config: BackendConfig, progress: LoadProgress | None = None
    ) -> None:
        super().__init__(graph, file, config)
        if graph.states:
            raise UnsupportedError("models with recurrent state have no kernels yet; try backend='reference'")
        threads = config.threads or default_threads()
        self._pools = _pools(graph, config)
        store = WeightStore(file, in_file=config.low_memory)
        lowering = Lowering(graph, file, store, config, [int(p.ctypes.data) for p in self._pools], threads)
        program = lowering.run()
        kernels = {op.kernel for op in program.ops} | set(store.kernels())
        addresses = load_kernels(sorted(kernels | set(teams.KERNELS)), progress)
        self._team = teams.team_of(threads)
        store.pack(self._team, addresses, progress)
        self._scratch = lowering.arena.lay_out()
        self._store, self._arena, self._keep = store, lowering.arena, program.keep
        self._ropes, self._mapped = program.ropes, program.mapped
        self._header = np.zeros(L.HEADER_WORDS, np.int64)
        self._header[L.H_ONE] = 1
        self._args: list[NDArray[np.int64]] = []
        self._plan = teams.Plan(self._assemble(program.ops, addresses), self._header)

        assert program.table is not None
        assert program.tokens_in is not None
        assert program.logits is not None
        info = file.tensors[program.table.name]
        self._table = file.data(program.table.name).reshape(
            info.shape[0], -1
        )  # rows stay mapped from the file
        self._dequantize = quants.get(info.type).dequantize
        self._x = self._arena.array(program.tokens_in.ref, config.max_tokens, program.tokens_in.stride)
        self._logits = self._arena.array(program.logits.ref, config.max_outputs, program.logits.stride)
        self._rows_per_item = max(1, L.MAX_PAIRS // program.group)
        self._slots, self._threads, self._kv_heads = lowering.slots, threads, program.kv_heads
        self._ops = program.ops
        self._profile: Profile | None = None

    def _assemble(self, planned: list[PlannedOp], addresses: dict[str, int]) -> NDArray[np.int64]:
        """Ops with addresses in place of refs."""
        table = np.zeros((len(planned), L.OP_WORDS), np.int64)
        for row, op in zip(table, planned, strict=True):
            block = np.array([self._address(a) for a in op.args], np.int64)
            self._args.append(block)
            row[: L.OP_MUL + 1] = addresses[op.kernel], block.ctypes.data, op.slot, op.div, op.mul
        return table

    def _address(self, argument: Argument) -> int:
        if isinstance(argument, Ref):
            return self._arena.address(argument)
        return self._store.address(argument) if isinstance(argument, Packed) else argument

    # -- a step ------------------------------------------------------------------------------------

    def execute(self, batch: Batch) -> NDArray[np.float32]:
        began = time.perf_counter()
        tokens = np.asarray(batch.tokens)
        rows = self._dequantize(self._table[tokens])
        self._x[: len(tokens), : rows.shape[1]] = rows
        alive = self._fill_header(batch)
        self._team.run(self._plan)
        del alive
        if self._profile is not None and self._plan.times is not None:
            seconds = time.perf_counter() - began
            counts = [int(self._header[op.slot]) for op in self._ops]
            self._profile.add(batch, counts, self._plan.times, seconds)
        return self._logits[: len(batch.outputs), : self.graph.vocab_size]

    def _fill_header(self, batch: Batch) -> list[NDArray[np.int64] | NDArray[np.int32]]:
        """Point the header at this step's arrays, which the caller keeps alive until it is over."""
        positions = positions_of(batch)
        tables = [np.asarray(s.pages, np.int32) for s in batch.sequences]
        row_pages = np.concatenate(
            [
                table[np.arange(s.position, s.position + s.count) // PAGE_SIZE]
                for s, table in zip(batch.sequences, tables, strict=True)
            ]
        )
        items, merges = self._attention_items(batch.sequences, [int(t.ctypes.data) for t in tables])
        outputs = np.asarray(batch.outputs, np.int32)
        for rope in self._ropes:
            rope.ensure(int(positions.max()) + 1)
        header = self._header
        header[L.H_TOKENS], header[L.H_OUTPUTS] = len(positions), len(outputs)
        header[L.H_ITEMS], header[L.H_MERGES] = len(items), len(merges)
        arrays = (positions, row_pages, outputs, items)
        header[L.H_POSITIONS : L.H_ITEM_TABLE + 1] = [a.ctypes.data for a in arrays]
        header[L.H_MERGE_TABLE] = merges.ctypes.data
        return [*arrays, merges, *tables]

    def _attention_items(
        self, sequences: Sequence[SequenceRows], tables: list[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The step's attention items and merges. A row becomes an item for each span where there would
        otherwise be too few for the threads, as long as there are slots.
        """
        items: list[tuple[int, ...]] = []
        merges: list[tuple[int, ...]] = []
        few = len(sequences) * self._kv_heads < _ITEMS_PER_THREAD * self._threads
        slot = 0
        for s, table in zip(sequences, tables, strict=True):
            spans = s.position // L.SPAN + 1
            if few and s.count == 1 and 1 < spans <= self._slots - slot:
                items += [(s.start, 1, s.position, table, n, slot + n) for n in range(spans)]
                merges.append((s.start, slot, spans))
                slot += spans
                continue
            for i in range(0, s.count, self._rows_per_item):
                rows = min(self._rows_per_item, s.count - i)
                items.append((s.start + i, rows, s.position + i, table, -1, 0))
        return (
            np.array(items, np.int64).reshape(-1, L.IT_WORDS),
            np.array(merges, np.int64).reshape(-1, L.ME_WORDS),
        )

    def profile(self) -> Profile:
        self._plan.trace()
        self._profile = Profile([op.work for op in self._ops])
        return self._profile

    # -- pages and the rest ------------------------------------------------------------------------

    def copy_page(self, source: int, target: int) -> None:
        for pool in self._pools:
            pool[target] = pool[source]

    def copy_slot(self, source: int, target: int) -> None:
        """No state is kept: models that have any are refused when loaded."""

    def memory(self) -> dict[str, int]:
        vectors = sum(a.nbytes for a in self._keep)
        return {
            "weights": self._store.nbytes + vectors,
            "kv_cache": sum(p.nbytes for p in self._pools),
            "scratch": self._scratch + sum(r.rows.nbytes for r in self._ropes),
        }

    def cancel(self) -> None:
        self._team.cancel()


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
