"""The kernels that are timed: each with its argument block, at a shape of a model of a billion parameters.

To add one: a function that returns a Work, and a row in CASES. A name is the kernel's, then the shape,
because costs under one name are compared from commit to commit: other work is another name. Most shapes are
a slice of the model's that fits into L2 (256 of a matrix's rows, 8 of 32 query heads), where the speed of
shared memory, which changes by the minute, has no say; those that end in "from memory" no cache can hold.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "kernels"))

from harness import address, header, pack, quantize, random_weight

from edgellm.backends.base import kv_bytes
from edgellm.backends.cpu.weights import FORMS
from edgellm.gguf import TensorType
from edgellm.kernels import layout as L
from edgellm.kernels.cache import load_kernels

ROWS, COLUMNS, CONTEXT = 256, 2048, 1024
ROOM = 448 << 10  # bytes of a weight at most: what L2 keeps whichever pages it gets
HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
PIECE = 4 << 20  # bytes: a tenth of a millisecond, short beside an OS's slice of time
PIECES = 25  # together no cache holds them; an odd number, see Work
_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)


@dataclass(frozen=True)
class Work:
    """Calls of all chunks of a kernel, to be made in turn: one, or one for each piece of what it reads, where
    that has to come from memory. Two who take turns, each at the next piece, both meet all of an odd number.
    """

    runs: Sequence[Callable[[], None]]
    pieces: Sequence[NDArray[np.uint8]] = ()


def _call(
    name: str, args: dict[int, int], words: np.ndarray, chunks: int, keep: object
) -> Callable[[], None]:
    """All chunks of a kernel, one after the other; `keep` is what the addresses in `args` point into."""
    block = np.zeros(24, np.int64)
    for index, value in args.items():
        block[index] = value
    function = _FUNCTION(load_kernels([name])[name])

    def run(keep: object = keep) -> None:
        for chunk in range(chunks):
            function(block.ctypes.data, words.ctypes.data, chunk, 0)

    return run


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy at a multiple of a cache line, as the backend's own memory is."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    out[...] = array
    return out


def _product(kind: TensorType, packed: np.ndarray, rows: int, tokens: int) -> Callable[[], None]:
    form = FORMS[kind]
    x = _aligned(np.random.default_rng(2).standard_normal((tokens, COLUMNS)).astype(np.float32))
    y, panels = np.zeros((tokens, rows), np.float32), rows // L.LANES
    scratch = _aligned(np.zeros(L.WIDE_SCRATCH, np.uint8))
    args = {
        L.MM_WEIGHTS: address(packed), L.MM_X: address(x), L.MM_X_STRIDE: x.strides[0],
        L.MM_Y: address(y), L.MM_Y_STRIDE: y.strides[0], L.MM_COLUMNS: COLUMNS,
        L.MM_PANELS: panels, L.MM_PANELS_PER_CHUNK: panels, L.MM_SLOT: L.H_TOKENS, L.MM_PLANES: 1,
        L.MM_SCRATCH: address(scratch),
    }  # fmt: skip
    if form.quantized:
        q = _aligned(quantize(x, form.zero))
        args |= {L.MM_X: address(q), L.MM_AUX: address(q, tokens * COLUMNS), L.MM_X_STRIDE: COLUMNS}
        x = q
    chunks = -(-tokens // L.MM_TOKENS)
    return _call(f"matmul.{form.name}", args, header(tokens), chunks, (packed, x, y, scratch))


def _rows(kind: TensorType) -> int:
    """Rows of a weight: ROWS, or as many groups of panels as ROOM holds, but one."""
    form, group = FORMS[kind], L.GROUP * L.LANES
    row_bytes = form.panel_bytes * COLUMNS // (form.columns * L.LANES)
    return min(ROWS, max(1, ROOM // row_bytes // group) * group)


def matmul(kind: TensorType, tokens: int) -> Work:
    """x [tokens, COLUMNS] times a weight from L2."""
    rows = _rows(kind)
    packed = _aligned(pack(kind, random_weight(kind, rows, COLUMNS, 1)[0], COLUMNS))
    return Work([_product(kind, packed, rows, tokens)])


def matmul_from_memory(kind: TensorType) -> Work:
    """One token's x [1, COLUMNS] times weights of PIECE bytes or a little less, each by another call."""
    some = pack(kind, random_weight(kind, ROWS, COLUMNS, 1)[0], COLUMNS)
    times = PIECE // some.nbytes
    pieces = _aligned(np.tile(some, (PIECES, times)))
    return Work([_product(kind, piece, times * ROWS, 1) for piece in pieces], list(pieces))


def pack_weight(kind: TensorType) -> Work:
    """A tensor as it is in a file, into panels."""
    rows = _rows(kind)
    raw = random_weight(kind, rows, COLUMNS, 1)[0]
    out = _aligned(pack(kind, raw, COLUMNS))
    args = {
        L.PK_SOURCE: address(raw), L.PK_TARGET: address(out), L.PK_ROWS: rows, L.PK_COLUMNS: COLUMNS,
        L.PK_ROW_BYTES: raw.shape[1], L.PK_PANELS_PER_CHUNK: rows // L.LANES,
    }  # fmt: skip
    return Work([_call(f"pack.{FORMS[kind].name}", args, header(0), 1, (raw, out))])


def pointwise(name: str) -> Work:
    """A chunk of rows through a norm, a gated unit or plain quantization, to quantized rows."""
    tokens = L.PW_CHUNK
    x, x2 = _aligned(np.random.default_rng(3).standard_normal((2, tokens, COLUMNS)).astype(np.float32))
    codes = _aligned(np.zeros(L.quantized_bytes(tokens, COLUMNS), np.uint8))
    weight = np.ones(COLUMNS, np.float32)
    args = {
        L.PW_X: address(x), L.PW_X2: address(x2), L.PW_WEIGHT: address(weight), L.PW_COLUMNS: COLUMNS,
        L.PW_X_STRIDE: x.strides[0], L.PW_CODES: address(codes), L.PW_AUX: address(codes, tokens * COLUMNS),
        L.PW_SLOT: L.H_TOKENS, L.PW_PLANES: 1, L.PW_ROWS: L.H_ONE,
    }  # fmt: skip
    return Work([_call(name, args, header(tokens), 1, (x, x2, codes, weight))])


def _pages(kv_type: str) -> tuple[np.ndarray, int, int]:
    """A pool of CONTEXT positions, [pages, kv heads, key and value], every number in it finite; two sizes."""
    key = value = kv_bytes(kv_type, HEAD_DIM)
    rng, shape = np.random.default_rng(4), (CONTEXT // L.PAGE, KV_HEADS, key + value)
    if kv_type == "f32":  # small bytes would make denormals: thirty times as long on Intel
        pool = rng.standard_normal((*shape[:2], shape[2] // 4)).astype(np.float32).view(np.uint8)
    else:
        pool = rng.integers(0, 60, shape, np.uint8)
    return _aligned(pool), key, value


def attend(kv_type: str, rows: int) -> Work:
    """The last `rows` positions of CONTEXT, over all before them."""
    pool, key, value = _pages(kv_type)
    table = np.arange(len(pool), dtype=np.int32)
    q = np.full((rows, HEADS, HEAD_DIM), 0.01, np.float32)  # scores near each other: no weight is denormal
    out, items = np.zeros_like(q), np.array([(0, rows, CONTEXT - rows, address(table), -1, 0)], np.int64)
    scratch = np.zeros(L.attention_scratch(max(L.MAX_PAIRS, rows * HEADS), HEAD_DIM), np.uint8)
    words = header(rows)
    words[L.H_ITEMS], words[L.H_ITEM_TABLE] = 1, address(items)
    args = {
        L.AT_Q: address(q), L.AT_Q_STRIDE: q.strides[0],
        L.AT_OUT: address(out), L.AT_OUT_STRIDE: out.strides[0],
        L.AT_HEADS: HEADS, L.AT_KV_HEADS: KV_HEADS, L.AT_HEAD_DIM: HEAD_DIM, L.AT_POOL: address(pool),
        L.AT_SCRATCH: address(scratch), L.AT_KEY_BYTES: key, L.AT_VALUE_BYTES: value,
        L.AT_SCALE: int(np.float32(0.125).view(np.int32)),
    }  # fmt: skip
    keep = (pool, table, q, out, items, scratch)
    return Work([_call(f"attention.attend_{kv_type}_{kv_type}", args, words, KV_HEADS, keep)])


def rope_store(kv_type: str) -> Work:
    """A chunk of consecutive tokens: queries and keys are turned, keys and values stored."""
    tokens = L.PW_CHUNK
    pool, key, value = _pages(kv_type)
    q = np.ones((tokens, HEADS, HEAD_DIM), np.float32)
    k, v = np.ones((2, tokens, KV_HEADS, HEAD_DIM), np.float32)
    angles = np.random.default_rng(5).uniform(-3, 3, (CONTEXT, HEAD_DIM // 2))
    table = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    positions, pages = np.arange(tokens, dtype=np.int32), np.zeros(tokens, np.int32)
    words = header(tokens)
    words[L.H_POSITIONS], words[L.H_ROW_PAGES] = address(positions), address(pages)
    args = {
        L.RS_Q: address(q), L.RS_K: address(k), L.RS_V: address(v),
        L.RS_Q_STRIDE: q.strides[0], L.RS_K_STRIDE: k.strides[0], L.RS_V_STRIDE: v.strides[0],
        L.RS_HEADS: HEADS, L.RS_KV_HEADS: KV_HEADS, L.RS_HEAD_DIM: HEAD_DIM, L.RS_DIMS: HEAD_DIM,
        L.RS_NEOX: 1, L.RS_TABLE: address(table), L.RS_POOL: address(pool),
        L.RS_KEY_BYTES: key, L.RS_VALUE_BYTES: value,
    }  # fmt: skip
    keep = (pool, q, k, v, table, positions, pages)
    return Work([_call(f"rope.turn_and_store_{kv_type}_{kv_type}", args, words, 1, keep)])


def _forms(kernel: str, what: str, build: Callable[..., Work], *more: int) -> dict[str, Callable[[], Work]]:
    """A row for every packed form."""
    return {
        f"{kernel}.{form.name} {what.format(rows=_rows(kind))}": functools.partial(build, kind, *more)
        for kind, form in FORMS.items()
    }


_ROWS_OUT = ("quantize.rows", "pointwise.rms_norm", "pointwise.glu_silu", "pointwise.glu_gelu_tanh")
_IN_FILES = (TensorType.Q4_0, TensorType.Q4_K, TensorType.Q6_K, TensorType.Q8_0)
CASES: dict[str, Callable[[], Work]] = {
    **_forms("matmul", f"1x{COLUMNS}x{{rows}}", matmul, 1),
    **_forms("matmul", f"128x{COLUMNS}x{{rows}}", matmul, 128),
    **{
        f"matmul.{FORMS[kind].name} 1x{COLUMNS} from memory": functools.partial(matmul_from_memory, kind)
        for kind in _IN_FILES
    },
    **_forms("pack", f"{{rows}}x{COLUMNS}", pack_weight),
    **{f"{name} {L.PW_CHUNK}x{COLUMNS}": functools.partial(pointwise, name) for name in _ROWS_OUT},
    **{
        f"attention.attend_{kv}_{kv} {rows} of {CONTEXT}": functools.partial(attend, kv, rows)
        for kv in L.KV_TYPES
        for rows in (1, L.MAX_PAIRS * KV_HEADS // HEADS)
    },
    **{f"rope.turn_and_store_{kv}_{kv} {L.PW_CHUNK}": functools.partial(rope_store, kv) for kv in L.KV_TYPES},
}
