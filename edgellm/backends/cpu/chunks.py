"""How a matrix product is cut into chunks: as few as share it evenly."""

from __future__ import annotations

import itertools

from edgellm.backends.cpu.weights import Packed
from edgellm.kernels import layout as L

_SMALL_BYTES, _MOST_BYTES = 32 << 10, 256 << 10  # of a chunk; the most is what L2 keeps
# Chunks for each thread, unless they were small: so that a faster one may take more, and more of them where
# some panels take twice as long as others.
_EVEN, _UNEVEN = 3, 5
_COST_BYTES = 6 << 10  # what a core reads while it gets a chunk and says that it is done: 0.3 us


def panels_per_chunk(packed: Packed, threads: int, uneven: bool) -> int:
    """Panels of a chunk, whole groups of them where rows are cut: so many that the thread with the largest
    share is done soonest. `uneven`: some panels have second rows, others not.
    """
    panels, unit = packed.panels, L.GROUP if packed.columns > L.PART else 1
    unit_bytes = unit * packed.panel_bytes
    shared = -(-panels // (unit * threads * (_UNEVEN if uneven else _EVEN)))
    most = min(-(-_MOST_BYTES // unit_bytes), max(shared, -(-_SMALL_BYTES // unit_bytes)))

    def cost(size: int) -> int:
        chunks = -(-panels // size)
        starts = [min(panels, chunks * share // threads * size) for share in range(threads + 1)]
        largest = max(end - start for start, end in itertools.pairwise(starts))
        return largest * packed.panel_bytes + -(-chunks // threads) * _COST_BYTES

    return min(range(unit, unit * most + 1, unit), key=cost)
