"""Attention over pages: against a plain softmax, and against itself however the prompt is cut."""

from __future__ import annotations

import numpy as np
import pytest
from harness import address, call, chunks_of, header

from edgellm.backends.base import kv_bytes
from edgellm.kernels import layout as L
from tests.naive import naive_attention, naive_rope

THETA = 10000.0
KINDS = ["f16", "f32", "q8_0", ("q8_0", "f16"), ("f16", "q8_0")]


def kept(x: np.ndarray, kind: str) -> np.ndarray:
    """What a cache of this type gives back of x [tokens, head_dim], one number after the other."""
    if kind != "q8_0":
        return x.astype({"f16": np.float16, "f32": np.float32}[kind])
    out = np.zeros_like(x)
    for t, row in enumerate(x):
        for first in range(0, len(row), 32):
            part = row[first : first + 32]
            peak = np.abs(part).max()
            codes = [round(float(n) * 127 / float(peak)) for n in part]
            out[t, first : first + 32] = np.array(codes) * float(np.float16(peak / 127))
    return out


class Layer:
    """One layer's pages and the two kernels over them."""

    def __init__(
        self,
        heads: int,
        kv_heads: int,
        head_dim: int,
        kv_type: str | tuple[str, str],
        style: str = "norm",
        window: int = 0,
    ):
        self.heads, self.kv_heads, self.head_dim, self.style, self.window = (
            heads,
            kv_heads,
            head_dim,
            style,
            window,
        )
        k, v = (kv_type, kv_type) if isinstance(kv_type, str) else kv_type
        self.kernel = f"{k}_{v}"
        self.bytes = kv_bytes(k, head_dim), kv_bytes(v, head_dim)
        rng = np.random.default_rng(0)
        # Pages begin with what another sequence left there.
        self.pool = rng.integers(0, 60, (40, kv_heads, sum(self.bytes)), np.uint8)
        angles = np.arange(1024)[:, None] * THETA ** (-2 * np.arange(head_dim // 2) / head_dim)
        self.table = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)

    def step(
        self,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        parts: list[tuple[int, int, np.ndarray]],
        by_span: bool = False,
    ):
        """Rows of several sequences: parts are (rows, first position, page table). Attention, [rows,
        heads, head_dim]; with `by_span` every row's spans are items of their own.
        """
        q, k, v = q.copy(), k.copy(), v.copy()
        rows = len(q)
        positions = np.concatenate([np.arange(p, p + n, dtype=np.int32) for n, p, _ in parts])
        pages = np.concatenate([t[np.arange(p, p + n) // L.PAGE] for n, p, t in parts]).astype(np.int32)
        per_item = max(1, L.MAX_PAIRS // (self.heads // self.kv_heads))
        items, merges, start, slot = [], [], 0, 0
        for n, p, table in parts:
            for i in range(0, n, 1 if by_span else per_item):
                if by_span:
                    spans = (p + i) // L.SPAN + 1
                    items += [(start + i, 1, p + i, address(table), j, slot + j) for j in range(spans)]
                    merges.append((start + i, slot, spans))
                    slot += spans
                else:
                    items.append((start + i, min(per_item, n - i), p + i, address(table), -1, 0))
            start += n
        table = np.array(items, np.int64)
        words = header(rows, parts=3)
        words[L.H_ITEMS], words[L.H_ITEM_TABLE] = len(items), address(table)
        words[L.H_APART] = len(parts) == rows
        merges = np.array(merges, np.int64).reshape(-1, L.ME_WORDS)
        words[L.H_MERGES], words[L.H_MERGE_TABLE] = len(merges), address(merges)
        slots = np.zeros(max(slot, 1) * L.attention_part(self.heads, self.head_dim), np.uint8)
        words[L.H_POSITIONS], words[L.H_ROW_PAGES] = address(positions), address(pages)
        common = {L.RS_HEADS: self.heads, L.RS_KV_HEADS: self.kv_heads, L.RS_HEAD_DIM: self.head_dim}
        args = common | {
            L.RS_Q: address(q), L.RS_K: address(k), L.RS_V: address(v),
            L.RS_Q_STRIDE: q.strides[0], L.RS_K_STRIDE: k.strides[0], L.RS_V_STRIDE: v.strides[0],
            L.RS_DIMS: self.head_dim, L.RS_NEOX: int(self.style == "neox"),
            L.RS_TABLE: address(self.table), L.RS_POOL: address(self.pool),
            L.RS_KEY_BYTES: self.bytes[0], L.RS_VALUE_BYTES: self.bytes[1],
        }  # fmt: skip
        call(f"rope.turn_and_store_{self.kernel}", args, words, chunks_of(rows, parts=3))
        out = np.zeros_like(q)
        scratch = np.zeros(L.attention_scratch(max(L.MAX_PAIRS, self.heads), self.head_dim), np.uint8)
        args = {
            L.AT_Q: address(q), L.AT_Q_STRIDE: q.strides[0],
            L.AT_OUT: address(out), L.AT_OUT_STRIDE: out.strides[0],
            L.AT_HEADS: self.heads, L.AT_KV_HEADS: self.kv_heads, L.AT_HEAD_DIM: self.head_dim,
            L.AT_KEY_BYTES: self.bytes[0], L.AT_VALUE_BYTES: self.bytes[1],
            L.AT_POOL: address(self.pool), L.AT_WINDOW: self.window, L.AT_SCRATCH: address(scratch),
            L.AT_PARTS: address(slots), L.AT_SCALE: int(np.float32(self.head_dim**-0.5).view(np.int32)),
        }  # fmt: skip
        call(f"attention.attend_{self.kernel}", args, words, len(items) * self.kv_heads)
        call("attention.merge", args, words, len(merges) * self.heads)
        return out


def draw(rows: int, heads: int, kv_heads: int, head_dim: int, seed: int):
    rng = np.random.default_rng(seed)
    return tuple(
        rng.standard_normal((rows, h, head_dim)).astype(np.float32) for h in (heads, kv_heads, kv_heads)
    )


SHAPES = [(4, 4, 16), (9, 3, 64), (8, 1, 32), (4, 2, 48), (6, 2, 128)]


@pytest.mark.parametrize("kv_type", KINDS)
@pytest.mark.parametrize("style", ["norm", "neox"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), SHAPES)
def test_attention_is_softmax_over_turned_keys(heads, kv_heads, head_dim, style, kv_type):
    length = 70
    layer = Layer(heads, kv_heads, head_dim, kv_type, style)
    q, k, v = draw(length, heads, kv_heads, head_dim, seed=1)
    out = layer.step(q, k, v, [(length, 0, np.array([7, 3, 11], np.int32))])
    k_type, v_type = (kv_type, kv_type) if isinstance(kv_type, str) else kv_type
    for row in (0, 1, 31, 32, 69):
        for head in (0, heads - 1):
            kv = head * kv_heads // heads
            turned = np.array([naive_rope(k[t, kv], t, THETA, style) for t in range(row + 1)])
            keys, values = kept(turned, k_type), kept(v[: row + 1, kv], v_type)
            want = naive_attention(naive_rope(q[row, head], row, THETA, style), keys, values, head_dim**-0.5)
            # Keys are rounded after the turn, whose own rounding may tip an f16 or an int8 to its neighbour.
            bound = 2e-5 if kv_type == "f32" else 2e-3 if kv_type == "f16" else 1e-2
            assert np.abs(out[row, head] - want).max() < bound


@pytest.mark.parametrize("window", [0, 1, 20, 100])
@pytest.mark.parametrize("kv_type", KINDS)
def test_any_cut_of_the_prompt_gives_the_same_bits(window, kv_type):
    length, shape = 300, (9, 3, 64)
    table = np.arange(5, 15, dtype=np.int32)
    q, k, v = draw(length, *shape, seed=2)
    whole = Layer(*shape, kv_type, window=window).step(q, k, v, [(length, 0, table)])
    for cut in (1, 7, 33, 256):
        layer = Layer(*shape, kv_type, window=window)
        parts = [
            layer.step(q[i : i + cut], k[i : i + cut], v[i : i + cut], [(len(q[i : i + cut]), i, table)])
            for i in range(0, length, cut)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("window", [0, 20, 300])
@pytest.mark.parametrize("shape", [(9, 3, 64), (4, 4, 80), (32, 1, 16)])
def test_spans_apart_give_the_same_bits(shape, window):
    length = 2 * L.SPAN + 60
    table = np.arange(1, 20, dtype=np.int32)
    q, k, v = draw(length, *shape, seed=8)
    layer = Layer(*shape, "f16", window=window)
    whole = layer.step(q, k, v, [(length, 0, table)])
    for position in (L.SPAN - 1, L.SPAN, 2 * L.SPAN + 7):
        row = slice(position, position + 1)
        apart = layer.step(q[row], k[row], v[row], [(1, position, table)], by_span=True)
        assert apart.tobytes() == whole[row].tobytes()


def test_a_window_hides_what_is_behind_it():
    length, shape, window = 90, (4, 2, 32), 40
    q, k, v = draw(length, *shape, seed=3)
    layer = Layer(*shape, "f32", window=window)
    out = layer.step(q, k, v, [(length, 0, np.array([1, 2, 3], np.int32))])
    row, head = 85, 3
    turned = np.array([naive_rope(k[t, 1], t, THETA, "norm") for t in range(row + 1)])
    want = naive_attention(
        naive_rope(q[row, head], row, THETA, "norm"),
        turned,
        v[: row + 1, 1],
        32**-0.5,
        first=row - window + 1,
    )
    assert np.abs(out[row, head] - want).max() < 2e-5


@pytest.mark.parametrize("lengths", [(1, 40, 5, 64), (1,) * 11])
def test_sequences_in_one_step_do_not_see_each_other(lengths):
    shape = (9, 3, 64)
    tables = [np.arange(3 * i, 3 * i + 3, dtype=np.int32) for i in range(len(lengths))]
    q, k, v = draw(sum(lengths), *shape, seed=4)
    together, first = Layer(*shape, "f16"), range(len(lengths))
    out = together.step(q, k, v, [(n, i, t) for n, i, t in zip(lengths, first, tables, strict=True)])
    start = 0
    for n, position, table in zip(lengths, first, tables, strict=True):
        rows = slice(start, start + n)
        alone = Layer(*shape, "f16")
        assert alone.step(q[rows], k[rows], v[rows], [(n, position, table)]).tobytes() == out[rows].tobytes()
        assert together.pool[table].tobytes() == alone.pool[table].tobytes()
        start += n


def test_values_too_large_for_f16_stay_finite_and_poison_nobody():
    shape = (2, 1, 16)
    layer = Layer(*shape, "f16")
    q, k, v = draw(3, *shape, seed=5)
    v[1] = 1e30
    table = np.array([2], np.int32)
    out = layer.step(q, k, v, [(3, 0, table)])
    assert np.isfinite(out).all()
    q, k, v = draw(1, *shape, seed=6)
    again = layer.step(q, k, v, [(1, 0, table)])  # the page now holds the large value behind its end
    assert np.abs(again - v.astype(np.float16)).max() < 1e-3
