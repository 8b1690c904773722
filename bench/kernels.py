#!/usr/bin/env python3
"""What kernels cost, as a ratio to a loop of byte dot products that is timed beside them.

    python bench/kernels.py             # the costs on this machine now, and what they were
    python bench/kernels.py --record    # keep them as this CPU's baseline, in bench/baselines.json

A cost is seconds of the kernel over seconds of the loop, each the best of many short rounds, in turn: the
clock's speed cancels out, and so does a neighbour who takes the core away. All data fits into L2, because the
speed of shared memory changes by the minute.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests" / "kernels")]

from harness import address, header, pack, quantize, random_weight  # noqa: E402
from machine import TARGET, dot_products  # noqa: E402

from edgellm.backends.base import kv_bytes  # noqa: E402
from edgellm.backends.cpu.weights import FORMS  # noqa: E402
from edgellm.gguf import TensorType  # noqa: E402
from edgellm.kernels import layout as L  # noqa: E402
from edgellm.kernels.cache import load_kernels  # noqa: E402

BASELINES = HERE / "baselines.json"
ROUNDS, LOOP = 40, 20_000
_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
_ROWS, _COLUMNS, _CONTEXT = 256, 2048, 512

Run = Callable[[], None]


def _run(name: str, args: dict[int, int], words: np.ndarray, chunks: int, keep: object) -> Run:
    """A call of all chunks of a kernel; `keep` is what its addresses point into."""
    block = np.zeros(24, np.int64)
    for index, value in args.items():
        block[index] = value
    function = _FUNCTION(load_kernels([name])[name])

    def run(keep: object = keep) -> None:
        for chunk in range(chunks):
            function(block.ctypes.data, words.ctypes.data, chunk, 0)

    return run


def _matmul(kind: TensorType, tokens: int) -> Run:
    form = FORMS[kind]
    packed = pack(kind, random_weight(kind, _ROWS, _COLUMNS, 1)[0], _COLUMNS)
    x = np.random.default_rng(2).standard_normal((tokens, _COLUMNS)).astype(np.float32)
    q, y = quantize(x, form.zero), np.zeros((tokens, _ROWS), np.float32)
    panels = _ROWS // L.LANES
    args = {
        L.MM_WEIGHTS: address(packed), L.MM_X: address(q), L.MM_AUX: address(q, tokens * _COLUMNS),
        L.MM_X_STRIDE: _COLUMNS, L.MM_Y: address(y), L.MM_Y_STRIDE: y.strides[0], L.MM_COLUMNS: _COLUMNS,
        L.MM_PANELS: panels, L.MM_PANELS_PER_CHUNK: panels, L.MM_SLOT: L.H_TOKENS, L.MM_PLANES: 1,
    }  # fmt: skip
    return _run(f"matmul.{form.name}", args, header(tokens), -(-tokens // L.MM_TOKENS), (packed, q, y))


def _pack(kind: TensorType) -> Run:
    raw = random_weight(kind, _ROWS, _COLUMNS, 1)[0]
    out = pack(kind, raw, _COLUMNS)
    args = {
        L.PK_SOURCE: address(raw), L.PK_TARGET: address(out), L.PK_ROWS: _ROWS, L.PK_COLUMNS: _COLUMNS,
        L.PK_ROW_BYTES: raw.shape[1], L.PK_PANELS_PER_CHUNK: _ROWS // L.LANES,
    }  # fmt: skip
    return _run(f"pack.{FORMS[kind].name}", args, header(0), 1, (raw, out))


def _rows(name: str, tokens: int = 8) -> Run:
    x, out = np.random.default_rng(3).standard_normal((2, tokens, _COLUMNS)).astype(np.float32)
    codes = np.zeros(L.quantized_bytes(2 * tokens, _COLUMNS), np.uint8)
    weight = np.ones(_COLUMNS, np.float32)
    args = {
        L.PW_X: address(x), L.PW_X2: address(out), L.PW_WEIGHT: address(weight), L.PW_COLUMNS: _COLUMNS,
        L.PW_X_STRIDE: x.strides[0], L.PW_CODES: address(codes), L.PW_AUX: address(codes, tokens * _COLUMNS),
        L.PW_SLOT: L.H_TOKENS, L.PW_PLANES: 1, L.PW_ROWS: L.H_ONE,
    }  # fmt: skip
    return _run(name, args, header(tokens), -(-tokens // L.PW_CHUNK), (x, out, codes, weight))


def _attend(kv_type: str, rows: int) -> Run:
    heads, kv_heads, head_dim = 8, 2, 64
    key, value = kv_bytes(kv_type, head_dim), kv_bytes(kv_type, head_dim)
    pool = np.random.default_rng(4).integers(0, 60, (_CONTEXT // L.PAGE, kv_heads, key + value), np.uint8)
    table = np.arange(_CONTEXT // L.PAGE, dtype=np.int32)
    q = np.ones((rows, heads, head_dim), np.float32)
    out, items = np.zeros_like(q), np.array([(0, rows, _CONTEXT - rows, address(table), -1, 0)], np.int64)
    scratch = np.zeros(L.attention_scratch(max(L.MAX_PAIRS, rows * heads), head_dim), np.uint8)
    words = header(rows)
    words[L.H_ITEMS], words[L.H_ITEM_TABLE] = 1, address(items)
    args = {
        L.AT_Q: address(q), L.AT_Q_STRIDE: q.strides[0],
        L.AT_OUT: address(out), L.AT_OUT_STRIDE: q.strides[0],
        L.AT_HEADS: heads, L.AT_KV_HEADS: kv_heads, L.AT_HEAD_DIM: head_dim, L.AT_POOL: address(pool),
        L.AT_SCRATCH: address(scratch), L.AT_KEY_BYTES: key, L.AT_VALUE_BYTES: value,
        L.AT_SCALE: int(np.float32(0.125).view(np.int32)),
    }  # fmt: skip
    keep = (pool, table, q, out, items, scratch)
    return _run(f"attention.attend_{kv_type}_{kv_type}", args, words, kv_heads, keep)


_QUANTIZED = [kind for kind in FORMS if FORMS[kind].quantized]
CASES: dict[str, Callable[[], Run]] = {
    **{f"{k.name}, 1 token": lambda k=k: _matmul(k, 1) for k in _QUANTIZED},
    **{f"{k.name}, 64 tokens": lambda k=k: _matmul(k, 64) for k in _QUANTIZED},
    **{f"pack {k.name}": lambda k=k: _pack(k) for k in _QUANTIZED},
    "quantize": lambda: _rows("quantize.rows"),
    "rms_norm": lambda: _rows("pointwise.rms_norm"),
    "glu_silu": lambda: _rows("pointwise.glu_silu"),
    "attend f16, 1 row": lambda: _attend("f16", 1),
    "attend f16, 12 rows": lambda: _attend("f16", 12),
    "attend q8_0, 1 row": lambda: _attend("q8_0", 1),
}


def cost(run: Run, rounds: int = ROUNDS) -> float:
    """Seconds of `run` over seconds of the loop, the best of each, taken in turn."""
    line = np.zeros(2048, np.uint8)
    best_run = best_loop = float("inf")
    for i in range(rounds + 2):
        began = time.perf_counter()
        dot_products(line.ctypes.data, LOOP)
        between = time.perf_counter()
        run()
        ended = time.perf_counter()
        if i >= 2:  # the first rounds fetch code and data
            best_loop, best_run = min(best_loop, between - began), min(best_run, ended - between)
    return best_run / best_loop


def cpu_name() -> str:
    """The CPU's model and the target: what a baseline is for."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {TARGET}"


def baseline() -> dict[str, float] | None:
    """This CPU's recorded costs, if there are any."""
    everything = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    found: dict[str, float] | None = everything.get(cpu_name())
    return found


def record(costs: dict[str, float]) -> None:
    """Keep these costs as this CPU's."""
    everything = json.loads(BASELINES.read_text()) if BASELINES.exists() else {}
    everything[cpu_name()] = {name: float(f"{value:.4g}") for name, value in costs.items()}
    BASELINES.write_text(json.dumps(everything, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="keep the costs as this CPU's baseline")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    costs = {name: min(cost(case()) for _ in range(3)) for name, case in CASES.items()}
    if options.json:
        print(json.dumps(costs))
    else:
        known = baseline() or {}
        for name, value in costs.items():
            was = f"{value / known[name]:6.2f} of the baseline" if name in known else ""
            print(f"{name:<22} {value:8.4f} {was}")
    if options.record:
        record(costs)


if __name__ == "__main__":
    main()
