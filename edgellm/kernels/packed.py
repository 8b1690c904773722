"""Dot products of 32 packed columns with a tile's tokens, by the size of codes: low and high sums, of 16
columns each. Weights are asked for meanwhile.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4, codes5, codes6
from edgellm.kernels.jit import CODES_IN_TURN, LARGEST_TILE, REQUESTS, device
from edgellm.simd.arithmetic import shift_right_bytes
from edgellm.simd.dots import dot4, dot4_signed
from edgellm.simd.fetching import fetch_here, later
from edgellm.simd.ops import load_bytes
from edgellm.simd.tiles import pitch

# Weights are fetched into L2 before their use, by the tiles that `targets.requests` names: early enough for
# a memory whose neighbours keep it busy. A Xeon that waits for lines asked for 3 KB ahead takes up to a fifth
# longer; 6 to 16 KB ahead are all the same.
#
# A line at a time, between dot products: a core has some sixteen places for lines on their way, which its
# loads need, too. With the requests of a block side by side, the Xeon takes 4% longer over most forms, and a
# tenth over eight tokens of Q6_K.
AHEAD = 8192
_FEW, MANY = REQUESTS


@device
def fetch(tile, w):
    """Ask for the line that the loop will reach long after w."""
    fetch_here(tile, w + AHEAD, _FEW)


# Nibbles and bytes are written out, so that the words' numbers are known: LLVM would leave a loop of them for
# ARM, and load each word by itself.


@device
def dots4(low, high, w, x):
    """32 columns of nibbles at w."""
    fetch(low, w)
    low_code, high_code = codes4(load_bytes(w))
    low, high = dot4(low, low_code, x, 0), dot4(high, high_code, x, 4)
    w = later(w, high)
    fetch(low, w + 64)
    low_code, high_code = codes4(load_bytes(w + 64))
    low, high = dot4(low, low_code, x, 1), dot4(high, high_code, x, 5)
    w = later(w, high)
    fetch(low, w + 128)
    low_code, high_code = codes4(load_bytes(w + 128))
    low, high = dot4(low, low_code, x, 2), dot4(high, high_code, x, 6)
    w = later(w, high)
    fetch(low, w + 192)
    low_code, high_code = codes4(load_bytes(w + 192))
    return dot4(low, low_code, x, 3), dot4(high, high_code, x, 7)


@device
def low_dots4(sums, w, x):
    """The low 16 of such columns."""
    for i in range(4):
        fetch(sums, w + 64 * i)
        code, _ = codes4(load_bytes(w + 64 * i))
        sums = dot4(sums, code, x, i)
    return sums


@device
def high_dots4(sums, w, x):
    """The high 16."""
    for i in range(4):
        _, code = codes4(load_bytes(w + 64 * i))
        sums = dot4(sums, code, x, i + 4)
    return sums


@device
def dots5(low, high, w, x):
    """`dots4` with a fifth bit: first a vector whose bit i is the top bit of vector i of the eight."""
    fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        low_code, high_code = codes5(load_bytes(w + 64 + 64 * i), top)
        low = dot4(low, low_code, x, i)
        fetch(low, w + 64 + 64 * i)
        high = dot4(high, high_code, x, i + 4)
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6(low, high, w, x, word):
    """A vector of pairs of bits and two of nibbles."""
    fetch(low, w)
    pairs = load_bytes(w)
    low_code, high_code = codes6(load_bytes(w + 64), pairs)
    high = dot4(high, high_code, x, word + 4)  # high before low: ARM has fewer spills
    fetch(low, w + 64)
    low = dot4(low, low_code, x, word)
    low_code, high_code = codes6(load_bytes(w + 128), shift_right_bytes(pairs, 2))
    high = dot4(high, high_code, x, word + 5)
    fetch(low, w + 128)
    low = dot4(low, low_code, x, word + 1)
    return low, high


def _group8(first):
    word_0, word_1, word_2, word_3 = range(first, first + 4)

    @device
    def group(sums, w, x):
        """16 columns of bytes."""
        fetch_here(sums, w + AHEAD, MANY)
        sums = dot4_signed(sums, load_bytes(w), x, word_0)
        fetch_here(sums, w + 64 + AHEAD, MANY)
        sums = dot4_signed(sums, load_bytes(w + 64), x, word_1)
        fetch_here(sums, w + 128 + AHEAD, MANY)
        sums = dot4_signed(sums, load_bytes(w + 128), x, word_2)
        fetch_here(sums, w + 192 + AHEAD, MANY)
        return dot4_signed(sums, load_bytes(w + 192), x, word_3)

    return group


_low_group8, _high_group8 = _group8(0), _group8(4)


@device
def dots8(low, high, w, x):
    """32 columns of signed bytes."""
    low = _low_group8(low, w, x)
    return low, _high_group8(high, later(w, low) + 256, x)


# Where registers are few (a Pi 4), steps stay in a loop, and the codes of either half of 5 or 6 bits are put
# together when they are wanted, and their bytes loaded again.


@device
def _dots4_by_steps(low, high, w, x):
    """`dots4` in a loop."""
    for i in range(4):
        fetch(low, w + 64 * i)
        low_code, high_code = codes4(load_bytes(w + 64 * i))
        low = dot4(low, low_code, x, i)
        high = dot4(high, high_code, x, i + 4)
    return low, high


@device
def _dots5_in_turn(low, high, w, x):
    """`dots5`, the high codes of several tokens once the low ones' products are done."""
    fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        at = w + 64 + 64 * i
        code, _ = codes5(load_bytes(at), top)
        low = dot4(low, code, x, i)
        fetch(low, at)
        _, code = codes5(load_bytes(later(at, low) if pitch(low) > 1 else at), top)
        high = dot4(high, code, x, i + 4)
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6_in_turn(low, high, w, x, word):
    """`_half6`, each codes' products after those before."""
    fetch(low, w)
    _, code = codes6(load_bytes(w + 64), load_bytes(w))
    high = dot4(high, code, x, word + 4)
    fetch(low, w + 64)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 64), load_bytes(w))
    low = dot4(low, code, x, word)
    w = later(w, low)
    _, code = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    high = dot4(high, code, x, word + 5)
    fetch(low, w + 128)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    low = dot4(low, code, x, word + 1)
    return low, high


@device
def _dots8_by_steps(low, high, w, x):
    """`dots8` in a loop."""
    for i in range(4):
        fetch_here(low, w + 64 * i + AHEAD, MANY)
        low = dot4_signed(low, load_bytes(w + 64 * i), x, i)
        fetch_here(low, w + 256 + 64 * i + AHEAD, MANY)
        high = dot4_signed(high, load_bytes(w + 256 + 64 * i), x, i + 4)
    return low, high


if CODES_IN_TURN:
    dots4, dots5, _half6, dots8 = _dots4_by_steps, _dots5_in_turn, _half6_in_turn, _dots8_by_steps


@device
def dots6(low, high, w, x):
    """32 columns of 6 bits (`pack.q6_k` says which)."""
    if LARGEST_TILE == 2:  # ARM: both halves at once would put sums on the stack
        for u in range(2):
            low, high = _half6(low, high, w + 192 * u, x, 2 * u)
        return low, high
    low, high = _half6(low, high, w, x, 0)
    return _half6(low, high, w + 192, x, 2)


# -- vector i of a block's eight by itself, codes(c, w), as `weighed.py` takes them: what the high ones are in
# is loaded again, or they would want registers while the low ones' products are made.


def nibbles(i):
    """Of `dots4`."""
    at, is_low = 64 * (i % 4), i < 4

    @device
    def codes(c, w):
        if is_low:
            fetch(c, w + at)
        low, high = codes4(load_bytes(w + at))
        return low if is_low else high

    return codes


def five_bits(i):
    """Of `dots5`."""
    at, bit, is_low = 64 * (i % 4), i % 4, i < 4

    @device
    def codes(c, w):
        if is_low:
            fetch(c, w + at)
        low, high = codes5(load_bytes(w + 64 + at), shift_right_bytes(load_bytes(w), bit))
        return low if is_low else high

    return codes


def six_bits(i):
    """Of `dots6`."""
    plane, at, bits, is_low = i % 4 // 2 * 192, 64 * (i % 2), i % 2 * 2, i < 4

    @device
    def codes(c, w):
        if is_low:
            fetch(c, w + plane + at)
        low, high = codes6(load_bytes(w + plane + 64 + at), shift_right_bytes(load_bytes(w + plane), bits))
        return low if is_low else high

    return codes


def signed_bytes(i):
    """Of `dots8`."""
    at = 64 * i

    @device
    def codes(c, w):
        fetch_here(c, w + at + AHEAD, MANY)
        return load_bytes(w + at)

    return codes
