"""Chunks that another worker may do instead.

A worker that the OS parks usually holds a chunk, and then all others wait: for milliseconds, where the chunk
takes 15 us. So a chunk whose results stand in its worker's own room may be offered. From then on whoever has
waited long enough for it takes it over; before its results go where all can see them, the worker claims them,
and drops them if it comes too late. Both have computed the same bits.

All of that is in one word of the worker's, what it holds: (serial:32, chunk:30, state:2). Only the worker
itself offers, and each time with a new serial; so an offer that is still the same word is still the same
chunk. It was made in the op that the others wait for, as none begins before all chunks of the last are done.

A chunk that was taken over may still be computed, in vain, when its op and even its epoch are over. So
kernels that offer read nothing from then on that changes from step to step but rows and sums, whose values do
not matter then; `backends/cpu/team.py` waits before memory is given back.
"""

from __future__ import annotations

from edgellm.kernels.benching import worker_words
from edgellm.kernels.jit import device
from edgellm.kernels.layout import (
    C_WORKERS,
    H_TEAM,
    HELD,
    LOST,
    OFFERED,
    STATE,
    STATE_BITS,
    W_HOLDS,
    W_SERIAL,
)
from edgellm.simd.atomics import atomic_load, atomic_store, compare_and_swap
from edgellm.simd.ops import get_i64, put_i64

_SERIAL_SHIFT = 32
_CHUNK = (1 << (_SERIAL_SHIFT - STATE_BITS)) - 1


@device
def offer(header, chunk, worker):
    """From here on another may do this worker's chunk instead. False if there is nobody."""
    control = get_i64(header + 8 * H_TEAM)
    if control == 0 or get_i64(control + 8 * C_WORKERS) == 1:
        return False
    words = worker_words(control, worker)
    serial = get_i64(words + 8 * W_SERIAL) + 1
    put_i64(words + 8 * W_SERIAL, serial)
    atomic_store(words + 8 * W_HOLDS, (serial << _SERIAL_SHIFT) | (chunk << STATE_BITS) | OFFERED)
    return True


@device
def is_ours(place):
    """Whether the chunk of the worker whose W_HOLDS is at `place` is still its own; then it stays so."""
    word = atomic_load(place)
    state = word & STATE
    return state == HELD or (state == OFFERED and compare_and_swap(place, word, HELD))


@device
def claim(header, worker):
    """Whether this worker's results may go where all see them."""
    control = get_i64(header + 8 * H_TEAM)
    return control == 0 or is_ours(worker_words(control, worker) + 8 * W_HOLDS)


@device
def find_offer(control, number):
    """Another worker that offers its chunk, and the word that says so; 0 where there is none."""
    for other in range(get_i64(control + 8 * C_WORKERS)):
        word = atomic_load(worker_words(control, other) + 8 * W_HOLDS)
        if other != number and word & STATE == OFFERED:
            return other, word
    return 0, 0


@device
def take_over(control, other, word):
    """The chunk that `other` offered by this word and now has lost; -1 if it is late, or somebody faster."""
    if compare_and_swap(worker_words(control, other) + 8 * W_HOLDS, word, LOST):
        return (word >> STATE_BITS) & _CHUNK
    return -1
