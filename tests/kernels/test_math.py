"""Exponentials against NumPy's in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from numba import njit

from edgellm.kernels import math  # chooses the target, before any operation is used
from edgellm.simd.ops import load_f32, store_f32

_LINE = 64


def _over(function):
    @njit
    def run(x, y, size):
        for at in range(0, size, _LINE):
            store_f32(y + at, function(load_f32(x + at)))

    def of(x):
        y = np.empty_like(x)
        run(x.ctypes.data, y.ctypes.data, x.nbytes)
        return y

    return of


_EXPONENTIALS = {
    "exp": (_over(math.exp), np.exp, -87.2, 88.0),
    "exp_of_negative": (_over(math.exp_of_negative), np.exp, -87.2, 0.0),
    "exp2_of_negative": (_over(math.exp2_of_negative), np.exp2, -126.0, 0.0),
}


@pytest.mark.parametrize("name", _EXPONENTIALS)
def test_an_exponential_is_right_to_two_units(name):
    function, exact, least, most = _EXPONENTIALS[name]
    x = np.linspace(least, most, 1 << 18, dtype=np.float32)
    error = np.abs(function(x) / exact(x.astype(np.float64)) - 1)
    assert error.max() < 2 * 2.0**-23
    assert np.sqrt((error**2).mean()) < 2.0**-23


@pytest.mark.parametrize("name", _EXPONENTIALS)
def test_an_exponential_is_one_at_zero_and_nothing_far_below(name):
    x = np.zeros(16, np.float32)
    x[1:4] = -0.0, -130.0, -1.0e30
    y = _EXPONENTIALS[name][0](x)
    assert y[:4].tolist() == [1.0, 1.0, 0.0, 0.0]
    assert (y[4:] == 1).all()


def test_powers_of_two_are_exact():
    x = -np.arange(128, dtype=np.float32)
    expected = np.where(x < -126, 0, np.exp2(x)).astype(np.float32)
    np.testing.assert_array_equal(_EXPONENTIALS["exp2_of_negative"][0](x), expected)
