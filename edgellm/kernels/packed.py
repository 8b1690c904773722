"""Dot products of 32 packed columns with a tile's tokens, by the size of codes: low and high sums, of 16
columns each. Weights are asked for meanwhile.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4, codes5, codes6
from edgellm.kernels.jit import CODES_IN_TURN, LARGEST_TILE, REQUESTS, device
from edgellm.simd.arithmetic import shift_right_bytes
from edgellm.simd.dots import dot4, dot4_signed, dot4_small
from edgellm.simd.ops import load_bytes
from edgellm.simd.tiles import fetch_here, later

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


@device
def dots4(low, high, w, x, nt):
    """32 columns of nibbles at w."""
    for i in range(4):
        fetch(low, w + 64 * i)
        low_code, high_code = codes4(load_bytes(w + 64 * i))
        low = dot4_small(low, low_code, x + 4 * nt * i)
        high = dot4_small(high, high_code, x + 4 * nt * (i + 4))
    return low, high


@device
def low_dots4(sums, w, x, nt):
    """Of such columns the low 16, at x."""
    for i in range(4):
        fetch(sums, w + 64 * i)
        code, _ = codes4(load_bytes(w + 64 * i))
        sums = dot4_small(sums, code, x + 4 * nt * i)
    return sums


@device
def high_dots4(sums, w, x, nt):
    """The high 16, at x."""
    for i in range(4):
        _, code = codes4(load_bytes(w + 64 * i))
        sums = dot4_small(sums, code, x + 4 * nt * i)
    return sums


@device
def dots5(low, high, w, x, nt):
    """The same with a fifth bit: first a vector whose bit i is the top bit of vector i of the eight."""
    fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        low_code, high_code = codes5(load_bytes(w + 64 + 64 * i), top)
        low = dot4_small(low, low_code, x + 4 * nt * i)
        fetch(low, w + 64 + 64 * i)
        high = dot4_small(high, high_code, x + 4 * nt * (i + 4))
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6(low, high, w, x, nt):
    """A vector of pairs of bits and two of nibbles."""
    fetch(low, w)
    pairs = load_bytes(w)
    low_code, high_code = codes6(load_bytes(w + 64), pairs)
    high = dot4(high, high_code, x + 16 * nt)  # high before low: ARM has fewer spills
    fetch(low, w + 64)
    low = dot4(low, low_code, x)
    low_code, high_code = codes6(load_bytes(w + 128), shift_right_bytes(pairs, 2))
    high = dot4(high, high_code, x + 20 * nt)
    fetch(low, w + 128)
    low = dot4(low, low_code, x + 4 * nt)
    return low, high


# Where registers are few (a Pi 4), the codes of either half are put together when they are wanted, and their
# bytes loaded again.


@device
def _dots5_in_turn(low, high, w, x, nt):
    """`dots5`, the high codes of several tokens once the low ones' products are done."""
    fetch(low, w)
    top = load_bytes(w)
    for i in range(4):
        at = w + 64 + 64 * i
        code, _ = codes5(load_bytes(at), top)
        low = dot4_small(low, code, x + 4 * nt * i)
        fetch(low, at)
        _, code = codes5(load_bytes(later(at, low) if nt > 1 else at), top)
        high = dot4_small(high, code, x + 4 * nt * (i + 4))
        top = shift_right_bytes(top, 1)
    return low, high


@device
def _half6_in_turn(low, high, w, x, nt):
    """`_half6`, each codes' products after those before."""
    fetch(low, w)
    _, code = codes6(load_bytes(w + 64), load_bytes(w))
    high = dot4(high, code, x + 16 * nt)
    fetch(low, w + 64)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 64), load_bytes(w))
    low = dot4(low, code, x)
    w = later(w, low)
    _, code = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    high = dot4(high, code, x + 20 * nt)
    fetch(low, w + 128)
    w = later(w, high)
    code, _ = codes6(load_bytes(w + 128), shift_right_bytes(load_bytes(w), 2))
    low = dot4(low, code, x + 4 * nt)
    return low, high


if CODES_IN_TURN:
    dots5, _half6 = _dots5_in_turn, _half6_in_turn


@device
def dots6(low, high, w, x, nt):
    """32 columns of 6 bits (`pack.q6_k` says which)."""
    if LARGEST_TILE == 2:  # ARM: both halves at once would put sums on the stack
        for u in range(2):
            low, high = _half6(low, high, w + 192 * u, x + 8 * nt * u, nt)
        return low, high
    low, high = _half6(low, high, w, x, nt)
    return _half6(low, high, w + 192, x + 8 * nt, nt)


@device
def _group8(sums, w, x, nt):
    """16 columns of bytes, written out: LLVM would leave a loop of them, on ARM."""
    fetch_here(sums, w + AHEAD, MANY)
    sums = dot4_signed(sums, load_bytes(w), x)
    fetch_here(sums, w + 64 + AHEAD, MANY)
    sums = dot4_signed(sums, load_bytes(w + 64), x + 4 * nt)
    fetch_here(sums, w + 128 + AHEAD, MANY)
    sums = dot4_signed(sums, load_bytes(w + 128), x + 8 * nt)
    fetch_here(sums, w + 192 + AHEAD, MANY)
    return dot4_signed(sums, load_bytes(w + 192), x + 12 * nt)


@device
def dots8(low, high, w, x, nt):
    """32 columns of signed bytes."""
    low = _group8(low, w, x, nt)
    return low, _group8(high, later(w, low) + 256, x + 16 * nt, nt)


@device
def _dots8_by_steps(low, high, w, x, nt):
    """`dots8` in a loop, where written out it would put sums on the stack."""
    for i in range(4):
        fetch_here(low, w + 64 * i + AHEAD, MANY)
        low = dot4_signed(low, load_bytes(w + 64 * i), x + 4 * nt * i)
        fetch_here(low, w + 256 + 64 * i + AHEAD, MANY)
        high = dot4_signed(high, load_bytes(w + 256 + 64 * i), x + 4 * nt * (i + 4))
    return low, high


if CODES_IN_TURN:
    dots8 = _dots8_by_steps
