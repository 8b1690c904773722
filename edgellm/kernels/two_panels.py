"""Two panels at a time against four tokens of a tile of eight, for prompts: each number of a token is loaded
once for both. A block takes as many multiplications as one panel against eight tokens, and fewer loads:

                       dot products   multiplications   loads   cycles (Zen 5) at best
    1 panel, 8 tokens            64                16     101   51: two loads in a cycle
    2 panels, 4 tokens           64                16   60-66   40: two products in a cycle

A core that makes two whole dot products in a cycle (Zen 5) waits for loads with one panel; one that makes
one (Zen 4) does not. Codes of 5 and 6 bits go so when they are unpacked (`wide.py`); Q4_1 and Q4_K have fewer
loads for more multiplications, and nothing to gain. The sums are those of `panels.py`, bit for bit.

A block asks for an eighth of a block of one panel: `parts.py` says which, so that sixteen such parts of eight
tiles fetch what comes next. Whoever was the first to read it would wait: a part of four tokens takes Q8_0 at
100 GB/s.
"""

from __future__ import annotations

from edgellm.kernels.codes import codes4
from edgellm.kernels.jit import PANELS_TOGETHER, device
from edgellm.kernels.layout import (
    AUX_START_HIGH,
    AUX_START_LOW,
    AUX_WORDS,
    BLOCK,
    PANEL_Q4_0,
    PANEL_Q8_0,
)
from edgellm.kernels.panels import add_nibbles, add_scaled
from edgellm.simd.dots import dot4, start
from edgellm.simd.fetching import fetch_here
from edgellm.simd.ops import load_bytes, load_f16
from edgellm.simd.tiles import beside, pitch


@device
def _nibbles(low, high, w, next_w, x):
    """32 columns of two panels."""
    for i in range(4):
        first_low, first_high = codes4(load_bytes(w + 64 * i))
        second_low, second_high = codes4(load_bytes(next_w + 64 * i))
        low = dot4(low, beside(first_low, second_low), x, i)
        high = dot4(high, beside(first_high, second_high), x, i + 4)
    return low, high


@device
def _bytes(low, high, w, next_w, x):
    """The same of bytes."""
    for i in range(4):
        at, next_at = w + 64 * i, next_w + 64 * i
        low = dot4(low, beside(load_bytes(at), load_bytes(next_at)), x, i)
        high = dot4(high, beside(load_bytes(at + 256), load_bytes(next_at + 256)), x, i + 4)
    return low, high


def _blocks(dots, add, panel_block):
    """The panel at w and the one after it, in blocks of a scale, then codes; `ahead`: what to fetch."""

    @device
    def panels(c, w, x, aux, ahead, columns):
        nt, apart = pitch(c), columns // BLOCK * panel_block
        for _ in range(columns // BLOCK):
            low, high = start(c, aux + AUX_START_LOW * 4 * nt), start(c, aux + AUX_START_HIGH * 4 * nt)
            low, high = dots(low, high, w + 32, w + apart + 32, x)
            fetch_here(c, ahead, 1)
            c = add(c, (low, high), aux, beside(load_f16(w), load_f16(w + apart)))
            w += panel_block
            ahead += panel_block // 8
            x += BLOCK * nt
            aux += AUX_WORDS * 4 * nt
        return c

    return panels


TWO_PANELS = {}  # by form
if PANELS_TOGETHER == 2:
    TWO_PANELS["q4_0"] = _blocks(_nibbles, add_nibbles, PANEL_Q4_0)
    TWO_PANELS["q8_0"] = _blocks(_bytes, add_scaled, PANEL_Q8_0)
