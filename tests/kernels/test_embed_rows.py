"""Rows of embedding tables, as the NumPy readers of the types have them."""

from __future__ import annotations

import numpy as np
import pytest
from harness import address, call, chunks_of, header, random_weight

from edgellm.backends.cpu.weights import FORMS
from edgellm.kernels import layout as L


@pytest.mark.parametrize("kind", FORMS, ids=lambda kind: kind.name)
def test_rows_are_those_of_the_table(kind):
    raw, values = random_weight(kind, 50, 768, seed=3)
    tokens = np.random.default_rng(0).integers(0, 50, 21).astype(np.int32)
    tokens[:2] = 0, 49
    out = np.full((22, 784), np.float32(7))
    words = header(21)
    words[L.H_TOKEN_IDS] = address(tokens)
    args = {
        L.EM_TABLE: address(raw), L.EM_ROW_BYTES: raw.shape[1], L.EM_COLUMNS: 768,
        L.EM_Y: address(out), L.EM_Y_STRIDE: out.strides[0],
    }  # fmt: skip
    call(f"embed.{FORMS[kind].name}", args, words, chunks_of(21))
    assert out[:21, :768].tobytes() == values[tokens].tobytes()
    assert (out[:, 768:] == 7).all()
    assert (out[21] == 7).all()
