"""Sums of nibbles where registers do not hold those of both halves of a block beside a tile's results: of
sixteen registers of half a vector (AVX2), four tokens' results take eight, and either sum eight more. So the
high columns' sums follow the low ones' in the same registers:

    low columns     total = start + dots
    in between      total = total << shift             16 times the ratio is 2 to the power of that
    high columns    total = total + start + 16 * dots

They are integers all the while, and make the same bits as two sums. From L2 four tokens take 0.72 to 0.9 of
the time with AVX-VNNI, 0.79 to 1 with AVX2: the less, the more other programs want of the core.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import AUX_SHIFT, AUX_START_HIGH, AUX_START_LOW
from edgellm.simd.dots import begin_partial, begin_second, end_partial, end_second, times_power, zeros_i32
from edgellm.simd.tiles import pitch


def total_of(dots, low_dots, high_dots, zero):
    """sums(c, codes, x, aux): 16 * (sum(code * x) * ratio + sum(code * x)), of the low and of the high 16
    columns; `zero` if codes have a zero point. `low_dots` and `high_dots` take one sum, `dots` takes both.
    """

    @device
    def sums(c, codes, x, aux):
        nt = pitch(c)
        low_at = aux + AUX_START_LOW * 4 * nt if zero else 0
        high_at = aux + AUX_START_HIGH * 4 * nt if zero else 0
        low, shift = begin_partial(c, low_at), aux + AUX_SHIFT * 4 * nt
        if nt == 1:  # one sum after the other would be waited for
            low, high = dots(low, begin_second(zeros_i32(c), high_at), codes, x)
            return end_second(times_power(end_partial(low, low_at), shift), high, high_at)
        total = times_power(end_partial(low_dots(low, codes, x), low_at), shift)
        return end_second(total, high_dots(begin_second(total, high_at), codes, x), high_at)

    return sums
