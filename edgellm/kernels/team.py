"""The team: workers that walk a plan together, from outside Python.

A plan is a list of ops; an op is so many chunks, in equal shares for the workers. They take them by tickets,
each of its own share first, then what is left of others', and nobody begins an op before the one before it
is done. A ticket is one word, (epoch:40, chunks left:24), and so is the count of chunks done.

Why shares: chunks go by tokens, and then by columns, so that a worker finds in its own cache much of what it
wrote an op before, and reads weights straight on. Where the way from core to core is long, a prompt of a
small model takes a third longer when chunks are handed out in turn.

Why compare-and-swap: the first to come in a new epoch replaces the old word by (epoch, count - 1). A
worker that slept through an epoch finds in every ticket either its own epoch with nothing left, or a later
one: it can take nothing, and leaves. For that, the end of an epoch leaves every ticket at (epoch, 0), also
those of ops without chunks and of steps that were given up. The epoch is odd while the plan's own words
change, so a worker that reads them looks twice.
"""

from __future__ import annotations

from edgellm.kernels.benching import clock, sit_out, worker_words
from edgellm.kernels.jit import device, kernel
from edgellm.kernels.layout import (
    C_ABORT,
    C_CONDITION,
    C_COUNT,
    C_EPOCH,
    C_HEADER,
    C_MUTEX,
    C_OPS,
    C_SLEEPERS,
    C_STOP,
    C_TICKETS,
    C_WORKERS,
    H_TEAM,
    HELD,
    MOST_SHARES,
    OP_ARGS,
    OP_DIV,
    OP_KERNEL,
    OP_MUL,
    OP_PARTS,
    OP_SLOT,
    OP_WORDS,
    TICKET_LEFT,
    TICKET_SHIFT,
    TICKET_WORDS,
    W_HOLDS,
    W_LEFT,
)
from edgellm.kernels.standing_in import is_ours
from edgellm.kernels.waiting import LOOKS, await_chunks
from edgellm.simd.atomics import (
    atomic_load,
    atomic_store,
    call_kernel,
    compare_and_swap,
    condition_broadcast,
    condition_wait,
    fence,
    fetch_add,
    mutex_lock,
    mutex_unlock,
    pause,
)
from edgellm.simd.ops import get_i64

_AWAKE_NS = 500_000  # without an epoch, before a worker goes to sleep
_STALL_NS = 2_000_000  # a worker that holds up the others this long (a server's own thread takes a core for
# about 1 ms in each step, to send eight tokens), and longer than ...
_STALL_CHUNKS = 4  # ... so many of our longest chunks, is benched;
_LAST_STALL_NS = 20_000_000  # in the last op, which draws one row's token while others wait, this long
_OFFER_NS = 50_000  # a chunk that is offered longer than this, and longer than ...
_OFFER_CHUNKS = 2  # ... so many of our longest chunks (but those in which we were parked), is taken over
_NEVER = 1 << 62


@device
def _chunks(op, header):
    size = get_i64(header + 8 * get_i64(op + 8 * OP_SLOT))
    div = get_i64(op + 8 * OP_DIV)
    parts = get_i64(header + 8 * get_i64(op + 8 * OP_PARTS))
    return parts * get_i64(op + 8 * OP_MUL) * ((size + div - 1) // div)


@device
def _shares(control):
    """How many tickets an op has: one for each worker, as far as they fit in a cache line."""
    return min(get_i64(control + 8 * C_WORKERS), MOST_SHARES)


@device
def _first_of(share, shares, count):
    """The first chunk of a share: the next share's is the one after its last."""
    return count * share // shares


@device
def _take(ticket, epoch, count):
    """The number of a chunk that is now ours; -1 if none is left, -2 if the epoch is over."""
    while True:
        word = atomic_load(ticket)
        its_epoch, left = word >> TICKET_SHIFT, word & TICKET_LEFT
        if its_epoch > epoch:
            return -2
        if its_epoch == epoch:
            if left == 0:
                return -1
            if compare_and_swap(ticket, word, word - 1):
                return count - left
        elif count == 0:
            if compare_and_swap(ticket, word, epoch << TICKET_SHIFT):
                return -1
        elif compare_and_swap(ticket, word, (epoch << TICKET_SHIFT) | (count - 1)):
            return 0


@device
def _take_any(tickets, epoch, count, number, shares):
    """The number of a chunk that is now this worker's; else as `_take`.

    Every ticket is looked at before the answer is that none is left, so that the end of an epoch closes them.
    """
    for i in range(shares):
        share = (number + i) % shares
        first = _first_of(share, shares, count)
        chunk = _take(tickets + 8 * share, epoch, _first_of(share + 1, shares, count) - first)
        if chunk != -1:
            return first + chunk if chunk >= 0 else chunk
    return -1


@device
def _mark_done(done, epoch):
    while True:
        word = atomic_load(done)
        new = word + 1 if word >> TICKET_SHIFT == epoch else (epoch << TICKET_SHIFT) | 1
        if compare_and_swap(done, word, new):
            return


@device
def _walk(control, epoch, number, ops, count_ops, header, tickets, times):
    """All ops of the plan, in order; how many were walked. When each was over goes to `times`, if not 0."""
    holds = worker_words(control, number) + 8 * W_HOLDS
    patience, offer_patience = _STALL_NS, _OFFER_NS
    shares = _shares(control)
    for i in range(count_ops):
        op, ticket = ops + 8 * OP_WORDS * i, tickets + 8 * TICKET_WORDS * i
        count = _chunks(op, header)
        if i == count_ops - 1:
            patience = max(patience, _LAST_STALL_NS)
        if number != 0:
            sit_out(control, number)
        while True:
            if atomic_load(control + 8 * C_ABORT) == header:
                return i
            atomic_store(holds, HELD)
            chunk = _take_any(ticket, epoch, count, number, shares)
            if chunk == -1 and count > 0:
                atomic_store(holds, 0)
                chunk = await_chunks(
                    control, header, ticket + 64, epoch, count, number, patience, offer_patience
                )
                if chunk >= 0:
                    atomic_store(holds, HELD)
            if chunk >= 0:
                began = clock(control, number)
                call_kernel(get_i64(op + 8 * OP_KERNEL), get_i64(op + 8 * OP_ARGS), header, chunk, number)
                if is_ours(holds):
                    _mark_done(ticket + 64, epoch)
                took = clock(control, number) - began
                patience = max(patience, _STALL_CHUNKS * took)
                if took < _STALL_NS:
                    offer_patience = max(offer_patience, _OFFER_CHUNKS * took)
            atomic_store(holds, 0)
            if chunk == -2:
                return i
            if chunk == -1:
                break
        if times != 0:
            atomic_store(times + 8 * i, clock(control, number))
    return count_ops


@device
def _give_up(control, epoch, first, ops, count_ops, header, tickets):
    """Close the tickets from op `first` on, and wait for the chunks that were taken before."""
    shares = _shares(control)
    for i in range(first, count_ops):
        ticket = tickets + 8 * TICKET_WORDS * i
        count, taken = _chunks(ops + 8 * OP_WORDS * i, header), 0
        for share in range(shares):
            size = _first_of(share + 1, shares, count) - _first_of(share, shares, count)
            while True:
                word = atomic_load(ticket + 8 * share)
                if compare_and_swap(ticket + 8 * share, word, epoch << TICKET_SHIFT):
                    break
            if word >> TICKET_SHIFT == epoch:
                taken += size - (word & TICKET_LEFT)
        if taken > 0:
            await_chunks(control, header, ticket + 64, epoch, taken, 0, _STALL_NS, _NEVER)


@kernel
def run(control, plan, unused, unused2):
    """Worker 0: begin an epoch with the plan (five words: ops, how many, header, tickets, times); back when
    it is done. `times` is 0, or room for when the plan began and when each op was over (ns).
    """
    epoch = get_i64(control + 8 * C_EPOCH) + 2
    atomic_store(control + 8 * C_EPOCH, epoch - 1)
    fence()
    ops, count_ops, header, tickets = get_i64(plan), get_i64(plan + 8), get_i64(plan + 16), get_i64(plan + 24)
    atomic_store(header + 8 * H_TEAM, control)
    atomic_store(control + 8 * C_OPS, ops)
    atomic_store(control + 8 * C_COUNT, count_ops)
    atomic_store(control + 8 * C_HEADER, header)
    atomic_store(control + 8 * C_TICKETS, tickets)
    atomic_store(control + 8 * C_EPOCH, epoch)
    fence()
    if atomic_load(control + 8 * C_SLEEPERS) > 0:
        mutex_lock(control + 8 * C_MUTEX)
        condition_broadcast(control + 8 * C_CONDITION)
        mutex_unlock(control + 8 * C_MUTEX)
    times = get_i64(plan + 32)
    if times != 0:
        atomic_store(times, clock(control, 0))
        times += 8
    reached = _walk(control, epoch, 0, ops, count_ops, header, tickets, times)
    if reached < count_ops:
        _give_up(control, epoch, reached, ops, count_ops, header, tickets)


@device
def _nothing_new(control, seen):
    """Whether no epoch has begun since `seen`."""
    epoch = atomic_load(control + 8 * C_EPOCH)
    return (epoch == seen or epoch % 2 == 1) and atomic_load(control + 8 * C_STOP) == 0


@device
def _begins_soon(control, number, seen):
    """Look for a new epoch, but not for long: whether there is one."""
    looks = 0
    since = clock(control, number)
    while _nothing_new(control, seen):
        pause()
        looks += 1
        if looks % LOOKS == 0 and clock(control, number) - since > _AWAKE_NS:
            return False
    return True


@kernel
def work(control, number, unused, unused2):
    """Any other worker: until told to stop, walk each plan as its epoch begins; sleep when none does."""
    seen = get_i64(worker_words(control, number) + 8 * W_LEFT)
    while atomic_load(control + 8 * C_STOP) == 0:
        if not _begins_soon(control, number, seen):
            mutex_lock(control + 8 * C_MUTEX)
            fetch_add(control + 8 * C_SLEEPERS, 1)
            while _nothing_new(control, seen):
                condition_wait(control + 8 * C_CONDITION, control + 8 * C_MUTEX)
            fetch_add(control + 8 * C_SLEEPERS, -1)
            mutex_unlock(control + 8 * C_MUTEX)
        epoch = atomic_load(control + 8 * C_EPOCH)
        ops, count_ops = atomic_load(control + 8 * C_OPS), atomic_load(control + 8 * C_COUNT)
        header, tickets = atomic_load(control + 8 * C_HEADER), atomic_load(control + 8 * C_TICKETS)
        if epoch != seen and epoch % 2 == 0 and atomic_load(control + 8 * C_EPOCH) == epoch:
            _walk(control, epoch, number, ops, count_ops, header, tickets, 0)
            seen = epoch
            atomic_store(worker_words(control, number) + 8 * W_LEFT, seen)
