"""Functions that hardware lacks, as polynomials whose every operation is written out: the same bits
everywhere.
"""

from __future__ import annotations

from edgellm.kernels.jit import device, float32, int32
from edgellm.simd.arithmetic import (
    bits_float,
    float_bits,
    fma,
    minimum,
    shift_left_i32,
    splat,
    splat_i32,
    where_less,
)

LOG2_E = float32(1.44269504)
_MAGIC = 12582912.0  # 1.5 * 2^23: what is added to it, below 2^22, is rounded to an integer in its low bits


@device
def _low_bits(shifted):
    return float_bits(shifted) - float_bits(splat(float32(_MAGIC)))


@device
def round_to_i32(x):
    """To the nearest integer, ties to even, for |x| < 2^22."""
    return _low_bits(x + splat(float32(_MAGIC)))


@device
def _polynomial(r, a, b, c, d, e, f):
    """a r^5 + b r^4 + ... + f, by Horner's scheme."""
    p = fma(splat(a), r, splat(b))
    p = fma(p, r, splat(c))
    p = fma(p, r, splat(d))
    p = fma(p, r, splat(e))
    return fma(p, r, splat(f))


@device
def exp(x):
    """e^x to about a unit in the last place; 0 below -87.3, infinite above 88.4.

    x = n ln 2 + r with |r| <= ln 2 / 2, then a polynomial of degree 6 in r (Taylor's, economized), times 2^n.
    """
    return _exp(x, minimum(x, splat(float32(89.0))))


@device
def exp_of_negative(x):
    """The same for x <= 0."""
    return _exp(x, x)


@device
def _exp(x, clamped):
    """e^x, `clamped` being x, at most 89. Far below, where 2^n has no bits, what is computed is not used."""
    shifted = clamped * splat(LOG2_E) + splat(float32(_MAGIC))
    n = shifted - splat(float32(_MAGIC))
    r = fma(n, splat(float32(-0.693359375)), clamped)
    r = fma(n, splat(float32(2.12194440e-4)), r)
    p = _polynomial(
        r,
        float32(1.9875691500e-4),
        float32(1.3981999507e-3),
        float32(8.3334519073e-3),
        float32(4.1665795894e-2),
        float32(1.6666665459e-1),
        float32(5.0000001201e-1),
    )
    p = fma(p, r * r, r) + splat(float32(1.0))
    power = bits_float(shift_left_i32(_low_bits(shifted) + splat_i32(int32(127)), 23))
    return where_less(x, splat(float32(-87.3)), splat(float32(0.0)), p * power)


@device
def exp2_of_negative(x):
    """2^x for x <= 0, to about a unit in the last place; 1 at 0, and 0 below -126.

    x = n + r with |r| <= 1/2; then a polynomial of degree 6 in r, of those that are 1 at 0 the one whose
    largest relative error is least, with n added to its exponent.
    """
    shifted = x + splat(float32(_MAGIC))
    r = x - (shifted - splat(float32(_MAGIC)))
    p = _polynomial(
        r,
        float32(1.5353362057e-4),
        float32(1.3398874557e-3),
        float32(9.6184373583e-3),
        float32(5.5503324708e-2),
        float32(2.4022647914e-1),
        float32(6.9314720286e-1),
    )
    p = fma(p, r, splat(float32(1.0)))
    power = bits_float(float_bits(p) + shift_left_i32(float_bits(shifted), 23))
    return where_less(x, splat(float32(-126.0)), splat(float32(0.0)), power)
