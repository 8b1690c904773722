"""Calling one kernel by hand: argument blocks from names, a header, and every chunk in turn."""

from __future__ import annotations

import ctypes

import numpy as np

from edgellm import quants
from edgellm.backends.cpu.weights import FORMS
from edgellm.gguf import TensorType
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels

_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
GUARD = np.float32(-12345.0)


def call(name: str, args: dict[int, int], header: np.ndarray, chunks: int) -> None:
    """Run all chunks of a kernel, the last one first: their order must not matter."""
    block = np.zeros(24, np.int64)
    for index, value in args.items():
        block[index] = value
    function = _FUNCTION(load_kernels([name])[name])
    for chunk in reversed(range(chunks)):
        function(block.ctypes.data, header.ctypes.data, chunk, 0)


def control_of(workers: int) -> np.ndarray:
    """The control block of a team that nobody is in, each of whom holds a chunk."""
    control = np.zeros(L.C_WORKER + L.WORKER_WORDS * workers, np.int64)
    control[L.C_WORKERS] = workers
    control[L.C_WORKER + L.W_HOLDS :: L.WORKER_WORDS] = L.HELD
    return control


def header(tokens: int, outputs: int = 0, parts: int = 1) -> np.ndarray:
    """A step header of so many tokens, whose rows are cut into so many parts."""
    words = np.zeros(L.HEADER_WORDS, np.int64)
    words[L.H_ONE], words[L.H_TOKENS], words[L.H_OUTPUTS], words[L.H_PARTS] = 1, tokens, outputs, parts
    return words


def address(array: np.ndarray, offset: int = 0) -> int:
    """Where an array's bytes are."""
    assert array.flags.c_contiguous
    return array.ctypes.data + offset


def chunks_of(rows: int, parts: int = 1) -> int:
    """Chunks of a pointwise kernel."""
    return -(-rows // L.PW_CHUNK) * parts


def quantize(x: np.ndarray, zero: int, planes: int = 1, parts: int = 1) -> np.ndarray:
    """Activations [tokens, columns] as the kernel writes them: codes, then aux."""
    tokens, columns = x.shape
    room = L.room_rows(tokens) * planes
    out = np.full(L.quantized_bytes(room, columns), 1, np.uint8)
    args = {
        L.PW_X: address(x),
        L.PW_X_STRIDE: x.strides[0],
        L.PW_COLUMNS: columns,
        L.PW_CODES: address(out),
        L.PW_AUX: address(out, room * columns),
        L.PW_SLOT: L.H_TOKENS,
        L.PW_ZERO: zero,
        L.PW_PLANES: planes,
    }
    call("quantize.rows", args, header(tokens, parts=parts), chunks_of(tokens, parts))
    return out


def random_weight(kind: TensorType, rows: int, columns: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Raw bytes [rows, row_bytes] of a tensor whose every code occurs, and its values as f32."""
    rng = np.random.default_rng(seed)
    quant = quants.get(kind)
    raw = rng.integers(0, 256, (rows, quant.row_bytes(columns)), np.uint8)
    blocks = raw.reshape(-1, quant.block.itemsize).view(quant.block)
    if quant.block.names is None:  # plain numbers
        raw = (rng.standard_normal((rows, columns)) * 0.1).astype(quant.block).view(np.uint8)
    else:
        for name in sorted({"d", "m", "dmin"} & set(quant.block.names)):
            blocks[name] = rng.uniform(-0.02, 0.02, blocks[name].shape).astype(np.float16)
    return raw, quant.dequantize(raw)


def pack(kind: TensorType, raw: np.ndarray, columns: int) -> np.ndarray:
    """A tensor in panels."""
    form, rows = FORMS[kind], len(raw)
    panels = L.panels_of(rows, columns)
    out = np.zeros(panels * (columns // form.columns) * form.panel_bytes, np.uint8)
    args = {
        L.PK_SOURCE: address(raw),
        L.PK_TARGET: address(out),
        L.PK_ROWS: rows,
        L.PK_COLUMNS: columns,
        L.PK_ROW_BYTES: raw.shape[1],
        L.PK_PANELS_PER_CHUNK: 2,
    }
    call(f"pack.{form.name}", args, header(0), -(-panels // 2))
    return out


def matmul(
    kind: TensorType,
    packed: np.ndarray,
    rows: int,
    x: np.ndarray,
    *,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    panels_per_chunk: int = 3,
    planes: int = 1,
    precise: int = 0,
    y_columns: int = 0,
    control: np.ndarray | None = None,
) -> np.ndarray:
    """x [tokens, columns] through packed weights: f32 [tokens, rows]; y and residual may have more columns.
    `control` is of a team, whose worker 0 this is. Checks that nothing outside was written.
    """
    form, (tokens, columns) = FORMS[kind], x.shape
    panels = L.panels_of(rows, columns)
    if columns > L.PART:
        panels_per_chunk = -(-panels_per_chunk // L.GROUP) * L.GROUP
    room = L.room_rows(tokens)
    y = np.full((room + 1, max(panels * L.LANES, y_columns)), GUARD)
    beside, scratch = np.zeros_like(y), np.zeros(L.WIDE_SCRATCH, np.uint8)
    if residual is not None:
        beside[:tokens, : residual.shape[1]] = residual
    args = {
        L.MM_WEIGHTS: address(packed),
        L.MM_Y: address(y),
        L.MM_Y_STRIDE: y.strides[0],
        L.MM_BIAS: address(bias) if bias is not None else 0,
        L.MM_RESIDUAL: address(beside) if residual is not None else 0,
        L.MM_COLUMNS: columns,
        L.MM_PANELS: panels,
        L.MM_PANELS_PER_CHUNK: panels_per_chunk,
        L.MM_SLOT: L.H_TOKENS,
        L.MM_PLANES: planes,
        L.MM_PRECISE: precise,
        L.MM_SCRATCH: address(scratch),
    }
    if form.quantized:
        q = quantize(x, form.zero, planes)
        args |= {L.MM_X: address(q), L.MM_AUX: address(q, room * planes * columns), L.MM_X_STRIDE: columns}
    else:
        args[L.MM_PLANES] = 1
        args |= {L.MM_X: address(x), L.MM_X_STRIDE: x.strides[0]}
    chunks = -(-panels // panels_per_chunk) * -(-tokens // L.MM_TOKENS)
    words = header(tokens)
    words[L.H_TEAM] = address(control) if control is not None else 0
    call(f"matmul.{form.name}", args, words, chunks)
    assert (y[room] == GUARD).all()
    assert (y[:, panels * L.LANES :] == GUARD).all()
    return y[:tokens, :rows].copy()
