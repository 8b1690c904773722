"""Weights packed once, at load: which form each type takes, and the plan that packs them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from edgellm import quants
from edgellm.backends.base import LoadProgress, WeightFile
from edgellm.backends.cpu.team import Plan, Team
from edgellm.errors import UnsupportedError
from edgellm.gguf import TensorType
from edgellm.graph import Weight
from edgellm.kernels import layout as L


@dataclass(frozen=True)
class Form:
    """A packed form: its kernels are `matmul.<name>` and `pack.<name>`."""

    name: str
    quantized: bool = True  # whether activations are quantized for it
    zero: int = 0  # the zero point of its codes, as the activations' aux must know it

    @property
    def columns(self) -> int:
        """Columns of one block."""
        return L.FORMS[self.name][0]

    @property
    def panel_bytes(self) -> int:
        """Bytes of 16 rows of one block."""
        return L.FORMS[self.name][1]


_MOST_JOBS, _MOST_BYTES = 32, 64 << 20  # that are packed in one call, in which Control-C is not heard

USE_REFERENCE = 'in Python, LLM(..., backend="reference") runs it, slowly'

FORMS = {
    TensorType.F32: Form("f32", quantized=False),
    TensorType.F16: Form("f16", quantized=False),
    TensorType.BF16: Form("bf16", quantized=False),
    TensorType.Q4_0: Form("q4_0", zero=8),
    TensorType.Q4_1: Form("q4_1"),
    TensorType.Q5_0: Form("q5_0", zero=16),
    TensorType.Q5_1: Form("q5_1"),
    TensorType.Q8_0: Form("q8_0", zero=128),
    TensorType.Q4_K: Form("q4_k"),
    TensorType.Q5_K: Form("q5_k"),
    TensorType.Q6_K: Form("q6_k", zero=32),
}


def form_of(file: WeightFile, weight: Weight) -> Form:
    """The packed form of a tensor. Raises UnsupportedError for a type without one."""
    kind = file.tensors[weight.name].type
    if kind not in FORMS:
        known = ", ".join(t.name for t in FORMS)
        raise UnsupportedError(
            f"tensor {weight.name!r} is of type {kind.name}; the cpu backend has {known}; " + USE_REFERENCE
        )
    return FORMS[kind]


@dataclass(frozen=True)
class Packed:
    """One or more tensors of equal form and columns, packed one below the other, each from a panel's (or a
    group's) beginning.
    """

    form: Form
    columns: int
    panels: int
    row_starts: tuple[int, ...]  # the first row of each tensor, a multiple of LANES
    offset: int  # bytes, in the store
    bias: NDArray[np.float32] | None  # [panels * LANES]

    @property
    def panel_bytes(self) -> int:
        return self.columns // self.form.columns * self.form.panel_bytes


class WeightStore:
    """All packed weights in one block of memory, which gets huge pages; none if they stay in the file."""

    def __init__(self, file: WeightFile, in_file: bool = False) -> None:
        self._file, self._in_file = file, in_file
        self._size = 0
        self._known: dict[tuple[str, ...], Packed] = {}
        self._jobs: list[tuple[str, str, int, int, int]] = []  # pack kernel, tensor, offset, rows, columns
        self._memory: NDArray[np.uint8] | None = None

    def add(self, pairs: Sequence[tuple[Weight, Weight | None]]) -> Packed:
        """Plan for the weights (and biases) of one projection; the same tensors are packed once."""
        key = tuple(w.name for w, _ in pairs)
        if key in self._known:
            return self._known[key]
        form, columns = form_of(self._file, pairs[0][0]), pairs[0][0].shape[1]
        offset, rows, starts = self._size, 0, []
        per_panel = columns // form.columns * form.panel_bytes
        jobs = []
        for weight, _ in pairs:
            place = offset + rows // L.LANES * per_panel
            jobs.append((f"pack.{form.name}", weight.name, place, weight.shape[0], columns))
            starts.append(rows)
            rows += L.panels_of(weight.shape[0], columns) * L.LANES
        panels = rows // L.LANES
        if not self._in_file:
            self._jobs += jobs
            self._size += -(-panels * per_panel // 64) * 64
        bias = self._bias(pairs, starts, rows)
        packed = Packed(form, columns, panels, tuple(starts), offset, bias)
        self._known[key] = packed
        return packed

    def _bias(
        self, pairs: Sequence[tuple[Weight, Weight | None]], starts: list[int], rows: int
    ) -> NDArray[np.float32] | None:
        if all(bias is None for _, bias in pairs):
            return None
        out = np.zeros(rows, np.float32)
        for (_, bias), start in zip(pairs, starts, strict=True):
            if bias is not None:
                out[start : start + bias.shape[0]] = self.vector(bias)
        return out

    def vector(self, weight: Weight) -> NDArray[np.float32]:
        """A small tensor as plain f32."""
        kind = self._file.tensors[weight.name].type
        values = quants.get(kind).dequantize(self._file.data(weight.name))
        return np.ascontiguousarray(values.reshape(-1), np.float32)

    def kernels(self) -> list[str]:
        """The packing kernels that `pack` will call."""
        return sorted({job[0] for job in self._jobs})

    @property
    def nbytes(self) -> int:
        """Bytes of all packed weights."""
        return self._size

    def address(self, packed: Packed) -> int:
        """Where packed weights are, after `pack`."""
        assert self._memory is not None
        return int(self._memory.ctypes.data + packed.offset)

    def _few(self, first: int) -> list[tuple[str, str, int, int, int]]:
        """Jobs from `first` on that one plan packs: one at least, and no more than take a moment."""
        sizes = (self._file.tensors[job[1]].nbytes for job in self._jobs[first : first + _MOST_JOBS])
        count = sum(end <= _MOST_BYTES for end in accumulate(sizes))
        return self._jobs[first : first + max(1, count)]

    def pack(self, team: Team, addresses: dict[str, int], progress: LoadProgress | None) -> None:
        """Pack everything, a few tensors at a time: between them Control-C is heard."""
        self._memory = np.zeros(self._size + 64, np.uint8)
        self._memory = self._memory[-self._memory.ctypes.data % 64 :]
        header = np.zeros(L.HEADER_WORDS, np.int64)
        header[[L.H_ONE, L.H_PARTS]] = 1
        first = 0
        while first < len(self._jobs):
            if progress:
                progress("packing weights", first, len(self._jobs))
            jobs = self._few(first)
            first += len(jobs)
            args = np.zeros((len(jobs), L.PK_WORDS), np.int64)
            ops = np.zeros((len(jobs), L.OP_WORDS), np.int64)
            sources = [self._file.data(name) for _, name, *_ in jobs]  # alive while the plan runs
            for i, (kernel, _, offset, rows, columns) in enumerate(jobs):
                panels = -(-rows // L.LANES)
                each = max(1, math.ceil(panels / 64))
                source = sources[i]
                target = self._memory.ctypes.data + offset
                args[i] = source.ctypes.data, target, rows, columns, source.nbytes // rows, each
                ops[i, : L.OP_MUL + 1] = (
                    addresses[kernel], args[i].ctypes.data, L.H_ONE, 1, math.ceil(panels / each),
                )  # fmt: skip
            team.run(Plan(ops, header))
            for _, name, *_ in jobs:
                self._file.release(name)
        if progress:
            progress("packing weights", len(self._jobs), len(self._jobs))
        self._jobs = []
