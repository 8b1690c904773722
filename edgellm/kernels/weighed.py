"""Sums where products come in pairs (AVX2).

`vpmaddubsw` multiplies bytes and adds two neighbours in 16 bits, where codes of up to 31 may be added four
times, of up to 63 twice, bytes once. `vpmaddwd` widens them: it multiplies two neighbours, and adds them in
32 bits. What it multiplies by is free, so it weighs the low columns against the high ones, and no sum has to
be shifted, or multiplied by a ratio:

    low columns     pairs = dots           total = weigh(pairs, 16 times the ratio)
    high columns    pairs = dots           total = total + weigh(pairs, 16) + start

Of sixteen registers of half a vector, four tokens' pairs take eight; so the low columns' totals wait on the
stack, as do results. Codes of 6 bits have a scale for each half, and a total. All are integers, and make the
same bits as two sums.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import AUX_FACTORS, AUX_START_HIGH, AUX_START_LOW
from edgellm.simd.dots import start
from edgellm.simd.pairs import (
    dot4_pairs,
    dot4_signed_pairs,
    no_pairs,
    settled,
    weigh,
    weigh_by,
)
from edgellm.simd.tiles import pitch


def _pairs_of(codes, first):
    """pairs(c, w, x): of 16 columns, from word `first` of x on, codes of at most 31."""
    codes_0, codes_1, codes_2, codes_3 = (codes(first + i) for i in range(4))
    word_0, word_1, word_2, word_3 = range(first, first + 4)

    @device
    def pairs(c, w, x):
        sums = dot4_pairs(no_pairs(c), codes_0(c, w), x, word_0)
        sums = dot4_pairs(sums, codes_1(c, w), x, word_1)
        sums = dot4_pairs(sums, codes_2(c, w), x, word_2)
        return dot4_pairs(sums, codes_3(c, w), x, word_3)

    return pairs


def total_of(codes, zero):
    """sums(c, w, x, aux): 16 * (sum(code * x) * ratio + sum(code * x)), of the low and of the high 16
    columns, less the zero point, if codes have one. `codes(i)` is a function of (c, w): vector i of a block's
    eight.
    """
    low_pairs, high_pairs = _pairs_of(codes, 0), _pairs_of(codes, 4)

    @device
    def sums(c, w, x, aux):
        nt = pitch(c)
        total = settled(weigh(low_pairs(c, w, x), aux + AUX_FACTORS * 4 * nt))
        total = settled(total + weigh_by(high_pairs(c, w, x), 16))
        return total + start(c, aux + AUX_START_HIGH * 4 * nt) if zero else total

    return sums


def totals_of(codes):
    """sums(c, w, x, aux): 16 * sum(code * x) * ratio, and sum(code * x), of codes of at most 63 that have a
    zero point.
    """

    def twice(word):
        codes_0, codes_1, next_word = codes(word), codes(word + 1), word + 1

        @device
        def pairs(c, w, x):
            sums = dot4_pairs(no_pairs(c), codes_0(c, w), x, word)
            return dot4_pairs(sums, codes_1(c, w), x, next_word)

        return pairs

    low_0, low_2, high_0, high_2 = (twice(word) for word in (0, 2, 4, 6))

    @device
    def sums(c, w, x, aux):
        nt = pitch(c)
        factors = aux + AUX_FACTORS * 4 * nt
        low = start(c, aux + AUX_START_LOW * 4 * nt) + weigh(low_0(c, w, x), factors)
        low = settled(low + weigh(low_2(c, w, x), factors))
        high = start(c, aux + AUX_START_HIGH * 4 * nt) + weigh_by(high_0(c, w, x), 1)
        return low, high + weigh_by(high_2(c, w, x), 1)

    return sums


def total_of_bytes(codes):
    """As `total_of`, of signed bytes: each word's pairs are widened by themselves."""

    def products(word):
        of_word = codes(word)

        @device
        def pairs(c, w, x):
            return dot4_signed_pairs(no_pairs(c), of_word(c, w), x, word)

        return pairs

    low_0, low_1, low_2, low_3, high_0, high_1, high_2, high_3 = map(products, range(8))

    @device
    def sums(c, w, x, aux):
        factors = aux + AUX_FACTORS * 4 * pitch(c)
        total = weigh(low_0(c, w, x), factors)
        total = settled(total + weigh(low_1(c, w, x), factors))
        total = settled(total + weigh(low_2(c, w, x), factors))
        total = settled(total + weigh(low_3(c, w, x), factors))
        total = settled(total + weigh_by(high_0(c, w, x), 16))
        total = settled(total + weigh_by(high_1(c, w, x), 16))
        total = settled(total + weigh_by(high_2(c, w, x), 16))
        return settled(total + weigh_by(high_3(c, w, x), 16))

    return sums
