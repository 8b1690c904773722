"""What is done to a tile is what is done to each of its vectors, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from edgellm.kernels import jit, math  # chooses the target, before any operation is used
from edgellm.simd.arithmetic import fma, maximum, shift_left_i32, splat, splat_i32, to_f32, where_less
from edgellm.simd.ops import load_f32, store_f32
from edgellm.simd.tiles import add_all, load_rows, store_rows, zeros

_VECTORS, _LINE = 4, 64


@jit.device
def _formula(x):
    """A bit of everything, vectors among tiles included."""
    whole = shift_left_i32(math.round_to_i32(x), 1)
    half, three, least = splat(jit.float32(0.5)), splat(jit.float32(3.0)), splat(jit.float32(-1.0))
    y = fma(math.exp(x), half, maximum(x, least) / three)
    return where_less(x, splat(jit.float32(0.25)), y, y - to_f32(whole + splat_i32(jit.int32(7))))


@njit
def _as_vectors(x, y, total):
    held = splat(jit.float32(0.0))
    for at in range(0, _VECTORS * _LINE, _LINE):
        value = _formula(load_f32(x + at))
        store_f32(y + at, value)
        held = held + value
    store_f32(total, held)


@njit
def _as_tile(x, y, total):
    values = _formula(load_rows(zeros(_VECTORS), x, _LINE))
    store_rows(values, y, _LINE)
    store_f32(total, add_all(splat(jit.float32(0.0)), values))


@njit
def _of_two_shapes(x):
    store_rows(load_rows(zeros(2), x, _LINE) + load_rows(zeros(_VECTORS), x, _LINE), x, _LINE)


def test_a_tile_is_its_vectors():
    x = np.random.default_rng(0).normal(0, 4, 64).astype(np.float32)
    x[:4] = np.inf, -np.inf, np.nan, -0.0
    found = []
    for function in (_as_vectors, _as_tile):
        y, total = np.zeros(64, np.float32), np.zeros(16, np.float32)
        function(x.ctypes.data, y.ctypes.data, total.ctypes.data)
        found.append((y.tobytes(), total.tobytes()))
    assert found[0] == found[1]
    assert np.isfinite(np.frombuffer(found[0][0], np.float32)[4:]).all()


def test_tiles_of_two_shapes_do_not_go_together():
    x = np.zeros(64, np.float32)
    with pytest.raises(TypingError):
        _of_two_shapes(x.ctypes.data)
