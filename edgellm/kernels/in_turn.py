"""Sums of nibbles where registers do not hold those of both halves of a block beside a tile's results: of
sixteen registers of half a vector (AVX-VNNI), four tokens' results take eight, and either sum eight more. So
the high columns' sums follow the low ones' in the same registers:

    low columns     total = start + dots
    in between      total = total << shift             16 times the ratio is 2 to the power of that
    high columns    total = total + start + 16 * dots

They are integers all the while, and make the same bits as two sums. From L2 four tokens take 0.72 to 0.9 of
the time: the less, the more other programs want of the core.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import AUX_SHIFT, AUX_START_HIGH, AUX_START_LOW
from edgellm.simd.dots import start, times_power, zeros_i32
from edgellm.simd.tiles import pitch


def total_of(dots, low_dots, high_dots, zero):
    """sums(c, codes, x, aux): 16 * (sum(code * x) * ratio + sum(code * x)), of the low and of the high 16
    columns, less the zero point, if codes have one. `low_dots` and `high_dots` take one sum, `dots` both.
    """

    @device
    def begin(c, aux, word):
        return start(c, aux + word * 4 * pitch(c)) if zero else zeros_i32(c)

    @device
    def sums(c, codes, x, aux):
        low, shift = begin(c, aux, AUX_START_LOW), aux + AUX_SHIFT * 4 * pitch(c)
        if pitch(c) == 1:  # one sum after the other would be waited for
            low, high = dots(low, begin(c, aux, AUX_START_HIGH), codes, x)
            return times_power(low, shift) + high
        total = times_power(low_dots(low, codes, x), shift)
        return high_dots(total + begin(c, aux, AUX_START_HIGH), codes, x)

    return sums
