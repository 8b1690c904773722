"""Nodes -> ops of the plan: where values stand, and in which forms. `nodes.py` has each kind of node.

A value has a `Place`: f32 rows in a buffer, at a stride; reshapes and slices are places in the same buffer.
A matmul over quantized weights wants its input quantized: a producer that can write that form itself is
told to (`wants`), else a `quantize` op is put between.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgellm.backends.base import PAGE_SIZE, BackendConfig, WeightFile, most_positions
from edgellm.backends.cpu.arena import Arena, Ref
from edgellm.backends.cpu.precise import precise_outputs
from edgellm.backends.cpu.weights import USE_REFERENCE, Form, Packed, WeightStore, form_of
from edgellm.backends.profile import Work
from edgellm.backends.rope import RopeTable
from edgellm.errors import UnsupportedError
from edgellm.graph import Graph, Node, O, T, Value, Weight, ops
from edgellm.graph.passes import Project, fuse_residual, fuse_rope, merge_projections, select_early
from edgellm.kernels import layout as L

_MOST_SLOTS = 512


class KernelName(NamedTuple):
    """A kernel that another one calls."""

    name: str


Argument = int | Ref | Packed | Weight | KernelName  # a weight is one that stays in its file


class Place(NamedTuple):
    """f32 rows: where the first one is, bytes from row to row, and the header word that counts them."""

    ref: Ref
    stride: int
    slot: int


class Quantized(NamedTuple):
    """Quantized rows, as kernels/layout.py draws them, for weights with this zero point; rows of a token."""

    codes: Ref
    aux: Ref
    zero: int
    planes: int


@dataclass
class PlannedOp:
    """An op whose addresses are not known yet."""

    kernel: str
    args: list[Argument]
    slot: int
    div: int
    mul: int
    work: Work
    parts: int  # the header word that multiplies the chunks


@dataclass
class Program:
    """All that lowering finds out."""

    ops: list[PlannedOp] = field(default_factory=list)
    logits: Place | None = None
    ropes: list[RopeTable] = field(default_factory=list)
    keep: list[NDArray[np.float32]] = field(default_factory=list)  # arrays that arguments point into
    group: int = 1  # query heads that share a kv head, in the layer where they are most
    kv_heads: int = 0  # in the layer where they are fewest


def float_bits(value: float) -> int:
    """The bits of an f32, as kernels take small constants. Raises UnsupportedError for what is none."""
    try:
        return int(struct.unpack("<i", struct.pack("<f", value))[0])
    except OverflowError as error:
        raise UnsupportedError(
            f"a setting of this model (or its reciprocal) is {value:g}, and kernels take at most 3.4e38"
        ) from error


class Lowering:
    """Walks the fused nodes once and writes the program."""

    def __init__(
        self,
        graph: Graph,
        file: WeightFile,
        store: WeightStore,
        config: BackendConfig,
        pools: list[int],
        threads: int,
    ) -> None:
        self.graph, self.file, self.store, self.config = graph, file, store, config
        self.pools, self.threads = pools, threads
        spans = -(-config.num_pages * PAGE_SIZE // L.SPAN)
        self.slots = min(spans, _MOST_SLOTS) if threads > 1 else 0  # spans that threads may share
        # Weights that stay in their file do not stand together as packed ones do.
        nodes = select_early(graph.nodes)
        nodes = merge_projections(nodes, lambda w: w if config.low_memory else form_of(file, w))
        self.nodes = fuse_rope(fuse_residual(nodes))
        self.arena = Arena()
        self.program = Program()
        self.places: dict[Value, Place] = {}
        self.quantized: dict[Value, list[Quantized]] = {}
        self.row_index: dict[Value, int] = {}  # values that are rows picked out of another
        self._tables: dict[tuple[ops.RopeConfig, str | None], RopeTable] = {}
        self._wanted = self._find_wanted()
        self.precise = precise_outputs(self.nodes, graph.vocab_size)
        readers = [
            n for n in self.nodes if isinstance(n.op, Project) and not self.precise.isdisjoint(n.outputs)
        ]
        self._two_rows = {n.inputs[0] for n in readers}

    def run(self) -> Program:
        """Lower every node. Raises UnsupportedError for one without a kernel."""
        from edgellm.backends.cpu.nodes import LOWERINGS  # they are written in terms of this class

        for node in self.nodes:
            lower = LOWERINGS.get(type(node.op))
            if lower is None:
                self.refuse(type(node.op).__name__)
            else:
                lower(self, node)
        assert self.graph.output is not None
        self.program.logits = logits = self.read(self.graph.output)
        args: list[Argument] = [0] * L.SM_WORDS
        args[L.SM_LOGITS], args[L.SM_STRIDE] = logits.ref, logits.stride
        args[L.SM_PART] = KernelName("sample.part")
        self.emit("sample.draw", args, L.H_OUTPUTS, 1, 1, Work("draw"))
        self.arena.touch(logits.ref, len(self.program.ops))
        return self.program

    def refuse(self, what: str) -> None:
        """Say that the model needs something that has no kernel."""
        raise UnsupportedError(f"this model needs {what}, which the cpu backend lacks; {USE_REFERENCE}")

    def _find_wanted(self) -> tuple[set[Value], dict[Value, set[int]]]:
        """Values that someone reads as f32, and the zero points for which someone reads a value quantized."""
        plain, coded = set(), defaultdict[Value, set[int]](set)
        for node in self.nodes:
            for i, value in enumerate(node.inputs):
                form = self._form(node) if isinstance(node.op, Project) and i == 0 else None
                if form is not None and form.quantized:
                    coded[value].add(form.zero)
                else:
                    plain.add(value)
        if self.graph.output is not None:
            plain.add(self.graph.output)
        return plain, coded

    def _form(self, node: Node) -> Form:
        weight = node.weights[0]
        assert weight is not None
        return form_of(self.file, weight)

    # -- what lowering functions use ---------------------------------------------------------------

    def wants(self, value: Value) -> tuple[bool, bool]:
        """Whether `value` is wanted as f32 rows, and whether as quantized rows.

        Rows quantized for one zero point also serve weights without any; for two, f32 rows are quantized
        again.
        """
        zeros = self._wanted[1].get(value, set())
        return value in self._wanted[0] or len(zeros - {0}) > 1, bool(zeros)

    def rows_of(self, value: Value) -> tuple[int, int]:
        """The header word that counts a value's rows, and for how many there is room."""
        if value.shape[0] is T:
            return L.H_TOKENS, L.room_rows(self.config.max_tokens)
        assert value.shape[0] is O
        return L.H_OUTPUTS, L.room_rows(self.config.max_outputs)

    def make(self, value: Value, width: int | None = None) -> Place:
        """Room for a value's f32 rows, each of an odd number of cache lines: a matmul's chunk, 64 rows of a
        few lines each, would else fall into a few sets of a cache. Whole groups of panels have room, whoever
        writes the rows: a residual's must be as far apart as those of what is added to it.
        """
        slot, rows = self.rows_of(value)
        groups = -(-(width or value.width) // (L.GROUP * L.LANES))
        stride = 4 * L.LANES * (groups * L.GROUP | 1)
        place = Place(self.arena.buffer(rows * stride, len(self.program.ops)), stride, slot)
        self.places[value] = place
        return place

    def make_quantized(self, value: Value, zero: int | None = None) -> Quantized:
        """Room for a value's quantized rows, for weights of this zero point (if None: the one that is
        wanted).
        """
        _, rows = self.rows_of(value)
        if value.width % L.BLOCK:
            self.refuse(
                f"rows of {value.width} columns in a quantized product (a multiple of {L.BLOCK} is needed)"
            )
        planes = 2 if value in self._two_rows else 1
        rows *= planes
        ref = self.arena.buffer(L.quantized_bytes(rows, value.width), len(self.program.ops))
        zero = max(self._wanted[1][value]) if zero is None else zero
        made = Quantized(ref, ref + rows * value.width, zero, planes)
        self.quantized.setdefault(value, []).append(made)
        return made

    def read(self, value: Value) -> Place:
        """A value's f32 rows, as input of the op being made."""
        place = self.places[value]
        self.arena.touch(place.ref, len(self.program.ops))
        return place

    def read_quantized(self, value: Value, zero: int) -> Quantized:
        """A value's quantized rows; puts a `quantize` op here if nobody wrote them for this zero point."""
        for found in self.quantized.get(value, ()):
            if zero in (0, found.zero):
                self.arena.touch(found.codes, len(self.program.ops))
                return found
        x = self.read(value)
        made = self.make_quantized(value, None if value not in self.quantized else zero)
        self.emit_rows("quantize.rows", x, value.width, codes=made)
        return self.read_quantized(value, zero)

    def emit(
        self,
        kernel: str,
        args: list[Argument],
        slot: int,
        div: int,
        mul: int,
        work: Work,
        parts: int = L.H_ONE,
    ) -> None:
        """Append an op."""
        self.program.ops.append(PlannedOp(kernel, args, slot, div, mul, work, parts))

    def emit_rows(
        self,
        kernel: str,
        x: Place,
        columns: int,
        *,
        x2: Argument = 0,
        weight: int = 0,
        y: Place | None = None,
        codes: Quantized | None = None,
        slot: int | None = None,
        eps: float = 0.0,
        heads: int = 1,
        rows: int = L.H_ONE,
    ) -> None:
        """Append a `pointwise` op."""
        args: list[Argument] = [0] * L.PW_WORDS
        slot = x.slot if slot is None else slot
        args[L.PW_X], args[L.PW_X2], args[L.PW_WEIGHT] = x.ref, x2, weight
        args[L.PW_COLUMNS], args[L.PW_X_STRIDE], args[L.PW_SLOT] = columns, x.stride, slot
        args[L.PW_EPS], args[L.PW_HEADS], args[L.PW_ROWS] = float_bits(eps), heads, rows
        if y is not None:
            args[L.PW_Y], args[L.PW_Y_STRIDE] = y.ref, y.stride
        if codes is not None:
            args[L.PW_CODES], args[L.PW_AUX], args[L.PW_ZERO], args[L.PW_PLANES] = codes
        moved = 4 * columns * heads * (2 if x2 == 0 else 3)
        work = Work(kernel.removeprefix("pointwise."), row_bytes=moved)
        self.emit(kernel, args, slot, L.PW_CHUNK, 1, work, L.H_PARTS)

    def vector(self, weight: Weight) -> int:
        """The address of a small tensor as f32."""
        array = self.store.vector(weight)
        self.program.keep.append(array)
        return int(array.ctypes.data)

    def rope_table(self, config: ops.RopeConfig, factors: Weight | None) -> RopeTable:
        """The table for these settings, one for all layers that share them."""
        key = (config, factors.name if factors else None)
        if key not in self._tables:
            values = self.store.vector(factors) if factors else None
            self._tables[key] = RopeTable(config, values, most_positions(self.graph, self.config))
            self.program.ropes.append(self._tables[key])
        return self._tables[key]
