"""Matrix products of every packed form against exact sums, and against themselves at every tile size."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from harness import GUARD, control_of, matmul, pack, random_weight

from edgellm import quants
from edgellm.backends.cpu.weights import FORMS
from edgellm.config import load_config
from edgellm.gguf import TensorType
from edgellm.kernels import layout as L
from edgellm.simd import targets
from tests.naive import quantize_activations

KINDS = list(FORMS)


def columns_of(kind: TensorType, blocks: int) -> int:
    return blocks * max(32, FORMS[kind].columns)


def expected(kind: TensorType, values: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The product in f64, with the activations as the kernel sees them."""
    seen = quantize_activations(x) if FORMS[kind].quantized else x.astype(np.float64)
    return seen @ values.astype(np.float64).T


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@pytest.mark.parametrize(("rows", "blocks"), [(16, 1), (1, 2), (33, 3), (80, 5)])
def test_product_is_the_exact_one_to_f32_rounding(kind, rows, blocks):
    columns = columns_of(kind, blocks)
    raw, values = random_weight(kind, rows, columns, seed=rows)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, columns)).astype(np.float32)
    x.reshape(5, -1, 16)[3:] *= 2.0 ** rng.integers(
        -9, 9, (2, columns // 16, 1)
    )  # scales of two groups differ
    y = matmul(kind, pack(kind, raw, columns), rows, x)
    want = expected(kind, values, x)
    # A dot product of K terms in f32: each rounding is at most 2^-24 of the sum of magnitudes.
    magnitude = np.abs(quantize_activations(x)) @ np.abs(values.astype(np.float64)).T
    assert (np.abs(y - want) <= 4e-7 * magnitude).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_extreme_codes_neither_saturate_nor_wrap(kind):
    columns = columns_of(kind, 2)
    raw, _ = random_weight(kind, 16, columns, seed=3)
    if FORMS[kind].quantized:
        raw[:8], raw[8:] = 0xFF, 0x80
        quant = quants.get(kind)
        blocks = raw.reshape(-1, quant.block.itemsize).view(quant.block)
        for name in {"d", "m", "dmin"} & set(quant.block.names or ()):
            blocks[name] = np.float16(0.01)
        if kind == TensorType.Q6_K:
            blocks["scales"] = -128
        values = quant.dequantize(raw)
    else:
        values = random_weight(kind, 16, columns, seed=3)[1]
    x = np.where(np.arange(columns) % 2, np.float32(127.0), np.float32(-127.0))[None].repeat(3, 0)
    x[1] = 127.0
    x[2] = -127.0
    y = matmul(kind, pack(kind, raw, columns), 16, np.ascontiguousarray(x, np.float32))
    want = expected(kind, values, x)
    assert np.abs(y - want).max() <= 1e-6 * np.abs(x).max() * np.abs(values).max() * columns


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 23, 64, 67])
def test_a_row_has_the_same_bits_in_any_company(kind, tokens):
    columns, rows = columns_of(kind, 3), 48
    raw, _ = random_weight(kind, rows, columns, seed=7)
    packed = pack(kind, raw, columns)
    x = np.random.default_rng(tokens).standard_normal((tokens, columns)).astype(np.float32)
    together = matmul(kind, packed, rows, x)
    alone = np.concatenate([matmul(kind, packed, rows, x[i : i + 1].copy()) for i in range(tokens)])
    assert together.tobytes() == alone.tobytes()


@pytest.mark.parametrize("kind", [k for k in KINDS if FORMS[k].quantized], ids=lambda k: k.name)
@pytest.mark.parametrize("tokens", [1, 2, 3, 7, 8, 13, 70])
def test_two_planes_make_the_activations_almost_exact(kind, tokens):
    columns, rows = columns_of(kind, 2), 32
    raw, values = random_weight(kind, rows, columns, seed=tokens)
    packed = pack(kind, raw, columns)
    x = np.random.default_rng(tokens).standard_normal((tokens, columns)).astype(np.float32)
    y = matmul(kind, packed, rows, x, planes=2)
    want = x.astype(np.float64) @ values.astype(np.float64).T
    magnitude = np.abs(x) @ np.abs(values.T)
    assert (np.abs(y - want) <= 2.0**-14 * magnitude).all()
    alone = np.concatenate([matmul(kind, packed, rows, x[i : i + 1].copy(), planes=2) for i in range(tokens)])
    assert y.tobytes() == alone.tobytes()


@pytest.mark.parametrize("kind", [k for k in KINDS if FORMS[k].quantized], ids=lambda k: k.name)
@pytest.mark.parametrize("columns", [256, 2 * L.PART + 256])
@pytest.mark.parametrize("tokens", [1, 3, 4, 6, 8, 11, 16, 29])
def test_some_panels_take_second_rows(kind, columns, tokens):
    """Bit for bit what a product without any and one with all of them give, bias and residual included."""
    rows, first = 7 * L.LANES, 3
    raw, _ = random_weight(kind, rows, columns, seed=3)
    packed = pack(kind, raw, columns)
    rng = np.random.default_rng(tokens)
    x = rng.standard_normal((tokens, columns)).astype(np.float32)
    bias = rng.standard_normal(8 * L.LANES).astype(np.float32)
    beside = {"bias": bias, "residual": rng.standard_normal((tokens, rows)).astype(np.float32)}
    some = matmul(kind, packed, rows, x, planes=2, precise=first, **beside)
    none, every = (matmul(kind, packed, rows, x, planes=n, **beside) for n in (1, 2))
    cut = first * L.LANES
    assert some[:, :cut].tobytes() == none[:, :cut].tobytes()
    assert some[:, cut:].tobytes() == every[:, cut:].tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_chunks_of_any_size_give_the_same_bits(kind):
    columns, rows = columns_of(kind, 2), 112
    raw, _ = random_weight(kind, rows, columns, seed=9)
    packed = pack(kind, raw, columns)
    x = np.random.default_rng(2).standard_normal((33, columns)).astype(np.float32)
    results = {matmul(kind, packed, rows, x, panels_per_chunk=n).tobytes() for n in (1, 2, 7)}
    assert len(results) == 1


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_bias_and_residual_are_bitwise_what_separate_adds_give(kind):
    columns, rows = columns_of(kind, 2), 40
    raw, _ = random_weight(kind, rows, columns, seed=4)
    packed = pack(kind, raw, columns)
    rng = np.random.default_rng(5)
    x = rng.standard_normal((6, columns)).astype(np.float32)
    bias = np.zeros(48, np.float32)
    bias[:rows] = rng.standard_normal(rows)
    residual = np.zeros((6, 48), np.float32)
    residual[:, :rows] = rng.standard_normal((6, rows))
    plain = matmul(kind, packed, rows, x)
    fused = matmul(kind, packed, rows, x, bias=bias, residual=residual)
    assert fused.tobytes() == ((plain + bias[:rows]) + residual[:, :rows]).astype(np.float32).tobytes()


@pytest.mark.parametrize("kind", [TensorType.Q4_0, TensorType.Q6_K, TensorType.F16], ids=lambda k: k.name)
@pytest.mark.parametrize("tokens", [2, 3, 4, 6, 8, 11, 20])
@pytest.mark.parametrize("planes", [1, 2])
def test_sums_that_wait_for_other_panels_are_the_same(kind, tokens, planes):
    """A few rows of a large y."""
    columns, rows = L.PART + 256, 70 * L.LANES
    raw, _ = random_weight(kind, rows, columns, seed=11)
    random = np.random.default_rng(tokens)
    x, residual, bias = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((tokens, columns), (tokens, rows), rows)
    )
    packed, large = pack(kind, raw, columns), (1 << 17) // 4
    for of_bias, of_residual in [(None, None), (bias, residual)]:
        at_once, later = (
            matmul(
                kind, packed, rows, x, bias=of_bias, residual=of_residual, panels_per_chunk=70, planes=planes,
                precise=20, y_columns=y_columns,
            )
            for y_columns in (0, large)
        )  # fmt: skip
        assert later.tobytes() == at_once.tobytes()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
@pytest.mark.parametrize("tokens", [1, 3, 4, 8, 11])
@pytest.mark.parametrize("planes", [1, 2])
def test_a_chunk_that_is_offered_gives_the_same_bits(kind, tokens, planes):
    """Its sums stand in the worker's own room until they are claimed; 70 panels are more than that holds."""
    columns, rows = columns_of(kind, 2), 70 * L.LANES
    raw, _ = random_weight(kind, rows, columns, seed=12)
    packed, random = pack(kind, raw, columns), np.random.default_rng(tokens)
    x, residual, bias = (
        random.standard_normal(shape).astype(np.float32)
        for shape in ((tokens, columns), (tokens, rows), rows)
    )
    control = control_of(2)
    alone, offered = (
        matmul(
            kind, packed, rows, x, bias=bias, residual=residual, panels_per_chunk=70, planes=planes,
            precise=20, control=words,
        )
        for words in (None, control)
    )  # fmt: skip
    assert offered.tobytes() == alone.tobytes()
    assert control[L.C_WORKER + L.W_HOLDS] == L.HELD
    its_rows = tokens * (planes if FORMS[kind].quantized else 1)
    few = its_rows < 3 * targets.choose(load_config().target).token_tiles[0]
    assert control[L.C_WORKER + L.W_SERIAL] == int(few)


def test_a_chunk_that_was_taken_over_is_not_written():
    kind, columns, rows = TensorType.Q4_0, 8192, 64 * L.LANES
    raw, _ = random_weight(kind, rows, columns, seed=13)
    packed, x = pack(kind, raw, columns), np.ones((4, columns), np.float32)
    control = control_of(2)
    holds = control[L.C_WORKER + L.W_HOLDS :]
    over = threading.Event()

    def take_over() -> None:
        while not over.is_set():
            if holds[0] & L.STATE == L.OFFERED:
                holds[0] = L.LOST
                return

    for _ in range(2000):  # it has a millisecond for that, and perhaps no core
        holds[0] = L.HELD
        other = threading.Thread(target=take_over)
        other.start()
        y = matmul(kind, packed, rows, x, panels_per_chunk=64, control=control)
        over.set()
        other.join()
        over.clear()
        if holds[0] == L.LOST:
            assert (y == GUARD).all()
            return
    pytest.fail("no chunk was taken over in time")


def test_zero_rows_stay_zero():
    raw, _ = random_weight(TensorType.Q4_0, 16, 64, seed=1)
    y = matmul(TensorType.Q4_0, pack(TensorType.Q4_0, raw, 64), 16, np.zeros((2, 64), np.float32))
    assert not y.any()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.name)
def test_long_rows_go_in_parts(kind):
    """Rows of two parts and a rest; the last group of panels is not full."""
    columns, rows = 2 * L.PART + max(32, FORMS[kind].columns), 5 * L.LANES + 3
    raw, values = random_weight(kind, rows, columns, seed=6)
    packed = pack(kind, raw, columns)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((27, columns)).astype(np.float32)
    bias = np.zeros(L.panels_of(rows, columns) * L.LANES, np.float32)
    bias[:rows] = rng.standard_normal(rows)
    residual = rng.standard_normal((27, rows)).astype(np.float32)
    want = x.astype(np.float64) @ values.astype(np.float64).T + bias[:rows] + residual
    magnitude = np.abs(x) @ np.abs(values.T) + 1
    for planes in (1, 2):
        options = {"bias": bias, "planes": planes}
        y = matmul(kind, packed, rows, x, residual=residual, **options)
        assert (np.abs(y - want) <= 2.0 ** (-13 if planes == 2 else -6) * magnitude).all()
        alone = [
            matmul(kind, packed, rows, x[i : i + 1].copy(), residual=residual[i : i + 1], **options)
            for i in range(27)
        ]
        assert y.tobytes() == np.concatenate(alone).tobytes()
