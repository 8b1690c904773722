"""Waiting for the last chunks of an op: what a worker does meanwhile, and when it loses patience."""

from __future__ import annotations

from edgellm.kernels.benching import bench_holders, clock, make_room, worker_words
from edgellm.kernels.helping import asks, do_part
from edgellm.kernels.jit import device
from edgellm.kernels.layout import (
    C_ABORT,
    C_EPOCH,
    HELD,
    TICKET_LEFT,
    TICKET_SHIFT,
    W_BENCHED,
    W_HOLDS,
)
from edgellm.kernels.standing_in import find_offer, take_over
from edgellm.simd.atomics import atomic_load, atomic_store, pause

LOOKS = 100  # at a word between two looks at the clock: how long one takes is for the CPU to say


@device
def _help(control, header, number):
    """Do a part of a chunk whose worker asks."""
    worker = worker_words(control, number)
    if atomic_load(worker + 8 * W_BENCHED) == 0:
        atomic_store(worker + 8 * W_HOLDS, HELD)
        do_part(header, number)
        atomic_store(worker + 8 * W_HOLDS, 0)


@device
def await_chunks(control, header, done, epoch, count, number, patience, offer_patience):
    """Wait until `count` chunks are done: -1; -2 if the epoch ended or was given up; or the number of a chunk
    that is now ours. Help meanwhile.

    After more than `patience` ns, worker 0 benches those who keep it waiting; if it is worker 0 that does,
    another makes room. What somebody offers for more than `offer_patience` ns is taken over.
    """
    looks, since = 0, 0
    other, offered, offered_since = 0, 0, 0
    while True:
        word = atomic_load(done)
        if word >> TICKET_SHIFT == epoch and word & TICKET_LEFT >= count:
            return -1
        if word >> TICKET_SHIFT > epoch or atomic_load(control + 8 * C_EPOCH) != epoch:
            return -2
        if number != 0 and atomic_load(control + 8 * C_ABORT) == header:
            return -2
        if asks(header):
            _help(control, header, number)
        pause()
        looks += 1
        if looks % LOOKS == 0:
            now = clock(control, number)
            if since == 0:
                since = now
            elif now - since > patience:
                if number == 0:
                    bench_holders(control, now)
                else:
                    make_room(control, number, now)
                since = now
            before, offered_before = other, offered
            other, offered = find_offer(control, number)
            if other != before or offered != offered_before:
                offered_since = now
            elif offered != 0 and now - offered_since > offer_patience:
                chunk = take_over(control, other, offered)
                if chunk >= 0:
                    return chunk
