"""The step header: what kernels read of the step, drawn in `kernels/layout.py`.

It is written anew for each step, between two steps that wait for it, when a step's weights have driven all
else out of the caches: so all lists go into two plain arrays. NumPy's would take twice the time.
"""

from __future__ import annotations

from array import array

import numpy as np

from edgellm.backends.base import PAGE_SIZE, Batch
from edgellm.backends.cpu.draws import DrawTable, address_of
from edgellm.kernels import layout as L

_ITEMS_PER_THREAD = 4  # chunks of attention that keep a team busy to the end
_FEWEST_ROWS, _MOST_PARTS = 4, 8  # of a chunk of rows that is cut


class Header:
    """The words, and the arrays of the present step that they point to.

    A step has at most `slots` spans that threads may share; an attention item has `rows_per_item` rows.
    """

    def __init__(self, threads: int, kv_heads: int, rows_per_item: int, slots: int) -> None:
        self.words = np.zeros(L.HEADER_WORDS, np.int64)
        self.words[L.H_ONE] = 1
        self.draws = DrawTable()
        self._enough = _ITEMS_PER_THREAD * threads / max(1, kv_heads)  # sequences that keep a team busy
        self._threads = threads
        self._rows_per_item, self._slots = rows_per_item, slots
        self._narrow, self._wide = array("i"), array("q")
        self._view = self.words.data

    def fill(self, batch: Batch) -> int:
        """Point everything at this step; how many positions ropes must know."""
        positions = [p for s in batch.sequences for p in range(s.position, s.position + s.count)]
        pages = [
            s.pages[p // PAGE_SIZE] for s in batch.sequences for p in range(s.position, s.position + s.count)
        ]
        narrow = [*batch.tokens, *positions, *pages, *batch.outputs]
        tables = []  # where each sequence's begins
        for s in batch.sequences:
            tables.append(len(narrow))
            narrow += s.pages
        self._narrow = array("i", narrow)
        base, tokens, outputs = address_of(self._narrow), len(positions), len(batch.outputs)
        items, merges = self._attention(batch, [base + 4 * table for table in tables])
        self._wide = array("q", [word for row in (*items, *merges) for word in row])
        self.draws = DrawTable(batch.draws)

        table = address_of(self._wide)
        for word, value in {
            L.H_TOKENS: tokens,
            L.H_OUTPUTS: outputs,
            L.H_ITEMS: len(items),
            L.H_MERGES: len(merges),
            L.H_TOKEN_IDS: base,
            L.H_POSITIONS: base + 4 * tokens,
            L.H_ROW_PAGES: base + 8 * tokens,
            L.H_OUTPUT_ROWS: base + 12 * tokens,
            L.H_ITEM_TABLE: table,
            L.H_MERGE_TABLE: table + 8 * L.IT_WORDS * len(items),
            L.H_DRAWS: self.draws.address,
            L.H_PARTS: self._parts(tokens),
            L.H_APART: int(len(batch.sequences) == tokens),
        }.items():
            self._view[word] = value
        return max(positions, default=-1) + 1

    def _parts(self, tokens: int) -> int:
        """Parts of a chunk of rows: one for each thread, all chunks together; to hand out more takes longer
        than it evens out. Very few rows are done by one thread in the two microseconds that it takes to
        share them.
        """
        if self._threads == 1 or tokens < _FEWEST_ROWS:
            return 1
        return min(_MOST_PARTS, max(1, self._threads // -(-tokens // L.PW_CHUNK)))

    def _attention(
        self, batch: Batch, tables: list[int]
    ) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The step's attention items and merges. A row becomes an item for each span where there would
        otherwise be too few for the threads, as long as there are slots.
        """
        items: list[tuple[int, ...]] = []
        merges: list[tuple[int, ...]] = []
        few = len(batch.sequences) < self._enough
        slot = 0
        for s, table in zip(batch.sequences, tables, strict=True):
            spans = s.position // L.SPAN + 1
            if few and s.count == 1 and 1 < spans <= self._slots - slot:
                items += [(s.start, 1, s.position, table, n, slot + n) for n in range(spans)]
                merges.append((s.start, slot, spans))
                slot += spans
                continue
            for i in range(0, s.count, self._rows_per_item):
                rows = min(self._rows_per_item, s.count - i)
                items.append((s.start + i, rows, s.position + i, table, -1, 0))
        return items, merges
