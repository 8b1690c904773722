"""How products are cut: evenly, in few chunks, none larger than L2 keeps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.backends.cpu.chunks import panels_per_chunk
from edgellm.backends.cpu.weights import FORMS, Packed
from edgellm.gguf import TensorType
from edgellm.kernels import layout as L


def packed(columns: int, rows: int, kind: TensorType = TensorType.Q4_1) -> Packed:
    return Packed(FORMS[kind], columns, L.panels_of(rows, columns), (0,), 0, None)


def shares(weight: Packed, size: int, threads: int) -> list[int]:
    """Panels of each thread, as the team divides the chunks."""
    chunks = -(-weight.panels // size)
    starts = [min(weight.panels, chunks * share // threads * size) for share in range(threads + 1)]
    return [end - start for start, end in itertools.pairwise(starts)]


@given(
    columns=st.integers(1, 64).map(lambda n: 256 * n),
    rows=st.integers(1, 40000),
    threads=st.integers(1, 32),
    uneven=st.booleans(),
)
def test_chunks_are_whole_groups_and_fit_into_l2(columns, rows, threads, uneven):
    weight = packed(columns, rows, TensorType.Q4_K)
    size = panels_per_chunk(weight, threads, uneven)
    unit = L.GROUP if columns > L.PART else 1
    assert size > 0
    assert size % unit == 0
    assert (size - unit) * weight.panel_bytes < 256 << 10


# The default model's: attn_output, q with k and v, gate with up; a 1B Llama's gate with up, and its output.
@pytest.mark.parametrize(
    ("columns", "rows", "threads"),
    [
        (576, 576, 2),
        (576, 960, 2),
        (576, 3072, 2),
        (2048, 16384, 2),
        (2048, 16384, 4),
        (2048, 128256, 2),
        (2048, 128256, 4),
    ],
)
def test_shares_are_even(columns, rows, threads):
    weight = packed(columns, rows)
    sizes = shares(weight, panels_per_chunk(weight, threads, uneven=False), threads)
    assert max(sizes) <= 1.04 * weight.panels / threads


def test_small_products_have_few_chunks_and_more_where_panels_differ():
    weight = packed(576, 3072)
    few, more = (-(-weight.panels // panels_per_chunk(weight, 2, uneven)) for uneven in (False, True))
    assert 6 <= few < 10 <= more


def test_nobody_gets_a_chunk_of_less_than_a_panel():
    assert panels_per_chunk(packed(576, 16), 8, uneven=False) == 1
