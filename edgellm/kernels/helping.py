"""Parts of a chunk: its worker asks for help, and those who wait for it to be done take some.

How many chunks an op has is fixed when a step begins. For the last one, which chooses a token, that is one
for each row: alone, a row of 150,000 logits would keep one worker busy and let all others wait. So it goes
over the row in parts, and each time asks.

Parts are given out by one word, (serial:40, parts left:24), as chunks are by tickets. Who takes one has read
before what to call. As the word has not changed meanwhile, that was still to be called: all parts of one
serial are taken, and done, before anything is written for the next.
"""

from __future__ import annotations

from edgellm.kernels.jit import device
from edgellm.kernels.layout import (
    H_ASKS,
    H_PART_ARGS,
    H_PART_KERNEL,
    H_PARTS_DONE,
    H_PARTS_LEFT,
    TICKET_LEFT,
    TICKET_SHIFT,
)
from edgellm.simd.atomics import atomic_load, atomic_store, call_kernel, compare_and_swap, fetch_add, pause


@device
def in_parts(header, kernel, args, parts, worker):
    """Call a kernel with (args, header, part, who does it) for every part; back when all are done. Where
    another chunk asks already, this worker does all of them.
    """
    if parts == 1 or not compare_and_swap(header + 8 * H_ASKS, 0, 1):
        for part in range(parts):
            call_kernel(kernel, args, header, part, worker)
        return
    serial = (atomic_load(header + 8 * H_PARTS_LEFT) >> TICKET_SHIFT) + 1
    atomic_store(header + 8 * H_PARTS_DONE, 0)
    atomic_store(header + 8 * H_PART_KERNEL, kernel)
    atomic_store(header + 8 * H_PART_ARGS, args)
    atomic_store(header + 8 * H_PARTS_LEFT, (serial << TICKET_SHIFT) | parts)
    while asks(header):
        do_part(header, worker)
    while atomic_load(header + 8 * H_PARTS_DONE) < parts:
        pause()
    atomic_store(header + 8 * H_ASKS, 0)


@device
def asks(header):
    """Whether there are parts that nobody has taken."""
    return atomic_load(header + 8 * H_PARTS_LEFT) & TICKET_LEFT != 0


@device
def do_part(header, worker):
    """Take a part, unless others were faster, and do it."""
    word = atomic_load(header + 8 * H_PARTS_LEFT)
    kernel, args = atomic_load(header + 8 * H_PART_KERNEL), atomic_load(header + 8 * H_PART_ARGS)
    if word & TICKET_LEFT != 0 and compare_and_swap(header + 8 * H_PARTS_LEFT, word, word - 1):
        call_kernel(kernel, args, header, (word & TICKET_LEFT) - 1, worker)
        fetch_add(header + 8 * H_PARTS_DONE, 1)
