"""Norms, gated units and quantization, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from harness import address, call, chunks_of, header, quantize

from edgellm.config import load_config
from edgellm.kernels import layout as L
from edgellm.simd import targets
from tests.naive import quantize_activations


def decode(packed: np.ndarray, tokens: int, columns: int, tiles: tuple[int, ...]) -> np.ndarray:
    """Quantized rows as the values they stand for, read by the drawing in kernels/layout.py."""
    out = np.zeros((tokens, columns))
    aux_words = packed[L.room_rows(tokens) * columns :].view(np.float32)
    first = 0
    while first < tokens:
        nt = next(n for n in tiles if n - (n >= 4) <= tokens - first)
        codes = (
            packed[first * columns : (first + nt) * columns].view(np.int8).reshape(columns // 32, 8, nt, 4)
        )
        at = first * (columns // 32) * L.AUX_WORDS
        aux = aux_words[at : at + nt * (columns // 32) * L.AUX_WORDS].reshape(columns // 32, L.AUX_WORDS, nt)
        assert not aux[:, :, tokens - first :].any()
        for n in range(min(nt, tokens - first)):
            scale, ratio = aux[:, L.AUX_SCALE, n], aux[:, L.AUX_RATIO, n]
            scales = np.stack([scale * ratio, scale], 1)
            blocks = codes[:, :, n].reshape(columns // 32, 2, 16) * scales[..., None]
            out[first + n] = blocks.reshape(-1)
            assert np.allclose(aux[:, L.AUX_SUM, n], blocks.sum((1, 2)), rtol=1e-5, atol=1e-5)
        first += nt
    return out


def token_tiles() -> tuple[int, ...]:
    """Sizes of the target's tiles, largest first."""
    return targets.choose(load_config().target).token_tiles


@pytest.mark.parametrize("tokens", [1, 2, 3, 5, 7, 8, 11, 13, 15])
def test_quantized_rows_stand_for_the_nearest_values(tokens):
    x = np.random.default_rng(tokens).standard_normal((tokens, 96)).astype(np.float32)
    x[0, :16] = 0
    got = decode(quantize(x, zero=8), tokens, 96, token_tiles())
    assert np.allclose(got, quantize_activations(x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("order", range(-12, 13))
def test_the_scales_of_two_groups_differ_by_a_power_of_two_within_its_limits(order):
    """The first 16 columns may be coarser up to 256 times, the last up to 16 times."""
    x = np.random.default_rng(order + 20).uniform(-1, 1, (8, 64)).astype(np.float32)
    x.reshape(8, 2, 2, 16)[:, :, 0] *= 2.0**order
    got = decode(quantize(x, zero=32), 8, 64, token_tiles())
    assert np.allclose(got, quantize_activations(x), rtol=1e-6, atol=0)
    error = np.abs(got - x).reshape(8, 2, 2, 16).max((0, 1, 3))
    peaks = np.array([2.0**order, 1.0])
    coarsest = np.maximum(2 * peaks, peaks[::-1] / np.array([16, 256]))  # twice: the next power of two
    assert (error <= 1.25 * coarsest / 254).all()  # the scale is fitted to all values, not to the largest


def rows_kernel(name: str, x: np.ndarray, *, x2=None, weight=None, eps=0.0, heads=1, parts=1) -> np.ndarray:
    out = np.zeros_like(x)
    args = {
        L.PW_X: address(x), L.PW_X2: address(x2) if x2 is not None else 0,
        L.PW_WEIGHT: address(weight) if weight is not None else 0, L.PW_Y: address(out),
        L.PW_COLUMNS: x.shape[1] // heads, L.PW_HEADS: heads,
        L.PW_X_STRIDE: x.strides[0], L.PW_Y_STRIDE: out.strides[0], L.PW_SLOT: L.H_TOKENS,
        L.PW_EPS: int(np.float32(eps).view(np.int32)), L.PW_ROWS: L.H_ONE,
    }  # fmt: skip
    call(name, args, header(len(x), parts=parts), chunks_of(len(x), parts))
    return out


@pytest.mark.parametrize("columns", [16, 48, 576, 1000])
def test_rms_norm(columns):
    rng = np.random.default_rng(columns)
    x = rng.standard_normal((11, columns)).astype(np.float32) * 3
    weight = rng.standard_normal(columns).astype(np.float32)
    got = rows_kernel("pointwise.rms_norm", x, weight=weight, eps=1e-5)
    wide = x.astype(np.float64)
    want = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5) * weight
    assert np.allclose(got, want, rtol=2e-6, atol=1e-7)


def test_silu_gate_over_the_whole_range_of_floats():
    x = np.concatenate([np.linspace(-120, 120, 4064), [0, -0.0, 1e-30, -1e-30, 88.5, -88.5, 3e38, -3e38] * 4])
    x = x.astype(np.float32).reshape(-1, 32)
    got = rows_kernel("pointwise.glu_silu", x, x2=np.ones_like(x))
    with np.errstate(over="ignore"):
        want = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
    assert np.isfinite(got).all()
    assert np.allclose(got, want, rtol=1e-6, atol=1e-36)


def test_gelu_gate_over_the_whole_range_of_floats():
    x = np.concatenate([np.linspace(-12, 12, 4064), [0, -0.0, 1e-30, -1e-30, 40, -40, 1e12, -1e12] * 4])
    x = x.astype(np.float32).reshape(-1, 32)
    got = rows_kernel("pointwise.glu_gelu_tanh", x, x2=np.full_like(x, 2))
    wide = x.astype(np.float64)
    want = wide * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
    assert np.isfinite(got).all()
    assert np.allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("columns", [96, 576, 1536])
def test_parts_of_rows_make_the_whole(columns, parts):
    rng = np.random.default_rng(columns)
    x, x2 = rng.standard_normal((2, 13, columns)).astype(np.float32)
    weight = rng.standard_normal(columns).astype(np.float32)
    kernels = {
        "pointwise.rms_norm": {"weight": weight},
        "pointwise.head_norm": {"weight": weight, "heads": 6},
        "pointwise.glu_silu": {"x2": x2},
        "pointwise.add": {"x2": x2},
        "pointwise.scale": {"eps": 0.3},
    }
    for name, given in kernels.items():
        whole = rows_kernel(name, x, **given)
        assert whole.any()
        assert rows_kernel(name, x, **given, parts=parts).tobytes() == whole.tobytes(), name
    for planes in (1, 2):
        whole = quantize(x, 8, planes)
        assert quantize(x, 8, planes, parts).tobytes() == whole.tobytes()


@pytest.mark.parametrize("columns", [16, 40])
def test_add_and_scale(columns):
    rng = np.random.default_rng(columns)
    x, x2 = (np.zeros((9, 48), np.float32) for _ in range(2))
    x[:, :columns], x2[:, :columns] = rng.standard_normal((2, 9, columns))
    assert (rows_kernel("pointwise.add", x, x2=x2) == x + x2).all()
    assert (rows_kernel("pointwise.scale", x, eps=0.3) == x * np.float32(0.3)).all()


def test_gather_takes_the_rows_that_are_wanted():
    x = np.arange(6 * 32, dtype=np.float32).reshape(6, 32)
    index, out = np.array([5, 0, 3], np.int32), np.zeros((3, 32), np.float32)
    words = header(6, outputs=3)
    words[L.H_OUTPUT_ROWS] = address(index)
    args = {
        L.PW_X: address(x), L.PW_Y: address(out), L.PW_COLUMNS: 32, L.PW_X_STRIDE: 128, L.PW_Y_STRIDE: 128,
        L.PW_SLOT: L.H_OUTPUTS, L.PW_ROWS: L.H_OUTPUT_ROWS,
    }  # fmt: skip
    call("pointwise.gather", args, words, 1)
    assert (out == x[index]).all()
