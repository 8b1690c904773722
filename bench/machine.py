"""What the machine itself can do at this moment: bytes read in a second, int8 products in a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from edgellm.kernels import jit  # chooses the target, before any operation is used
from edgellm.simd import arithmetic, dots, ops, tiles

# Accumulators: enough to hide a dot product's latency (5 cycles, twice a cycle, on Intel), and no more than
# the registers hold: 32 of a whole vector or of a quarter, or 16 of half a one.
_TILE = 12 if jit.LARGEST_TILE >= 8 else 6
_OPERATIONS = 2 * 4 * 16 * _TILE  # of one round: a multiplication and its addition are two
_BYTES = 1 << 30


@njit(nogil=True)
def _dot_products(address: int, rounds: int) -> None:
    """`rounds` times _TILE dot products, from registers and a few lines of L1: always others, so that nothing
    can be computed before the loop.
    """
    acc = dots.zeros_i32(tiles.zeros(_TILE))
    codes = arithmetic.mask_bytes(ops.load_bytes(address), 63)
    for i in range(rounds):
        acc = dots.dot4(acc, codes, address + 64 + 32 * (i % 16), 0)
    tiles.store_rows(acc, address + 1024, 64)


@njit(nogil=True)
def _read(address: int, count: int) -> float:
    """The sum of `count` bytes as f32, by sixteen vectors at a time."""
    acc = tiles.zeros(16)
    for at in range(address, address + count, 1024):
        acc = tiles.add_rows(acc, at, 64)
    total = 0.0
    room = ops.room(1024)
    tiles.store_rows(acc, room, 64)
    for i in range(256):
        total += ops.get_f32(room + 4 * i)
    return total


def _together(threads: int, work: Callable[[int], None]) -> float:
    """Seconds that `threads` calls of work(i) take side by side."""
    team = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    began = time.perf_counter()
    for member in team:
        member.start()
    for member in team:
        member.join()
    return time.perf_counter() - began


class Machine:
    """Probes of the machine; the memory they read is allocated once."""

    def __init__(self) -> None:
        self._memory: NDArray[np.float32] = np.ones(_BYTES // 4, np.float32)
        self._line = np.zeros(4096, np.uint8)

    def read_bandwidth(self, threads: int, repeat: int = 3) -> float:
        """Bytes a second that `threads` read from memory, one after the other: the best of `repeat`."""
        share = _BYTES // threads // 1024 * 1024
        base = self._memory.ctypes.data
        _read(base, 1024)
        seconds = min(_together(threads, lambda i: _read(base + i * share, share)) for _ in range(repeat))
        return share * threads / seconds

    def int8_peak(self, threads: int, repeat: int = 3) -> float:
        """Operations a second of the target's dot product, with nothing beside it: the best of `repeat`."""
        rounds = 20_000_000
        lines = [np.zeros(2048, np.uint8) for _ in range(threads)]
        _dot_products(lines[0].ctypes.data, 1)
        seconds = min(
            _together(threads, lambda i: _dot_products(lines[i].ctypes.data, rounds)) for _ in range(repeat)
        )
        return _OPERATIONS * rounds * threads / seconds


TARGET = jit.TARGET.name
