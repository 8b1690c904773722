"""Conformance cases as files, and a backend fed with tokens: shared by the tests of backends and engine."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from conformance.fill import fill

from edgellm.backends.base import PAGE_SIZE, Batch, SequenceRows
from edgellm.gguf import Metadata

CONFORMANCE = Path(__file__).parent / "conformance"
MAX_NMSE = 1e-6  # the reference logits were computed in f32 in another order, GELU through a table of f16


def conformance_names(root=CONFORMANCE):
    """The cases under a folder with `archs` and `expected`."""
    return sorted(path.stem for path in (root / "archs").glob("*.json"))


def skeleton(name, root=CONFORMANCE):
    """A case's metadata and tensor shapes, as fill.py describes them."""
    return json.loads((root / "archs" / f"{name}.json").read_text())


def conformance_file(name, tmp_path_factory, root=CONFORMANCE):
    """The case's GGUF file, written once a session."""
    folder = tmp_path_factory.getbasetemp() / "conformance"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.gguf"
    if not path.exists():
        fill(skeleton(name, root), str(path))
    return path


def expected(name, root=CONFORMANCE):
    """The case's tokens and the logits of every position, f32 [tokens, vocab]."""
    with np.load(root / "expected" / f"{name}.npz") as data:
        return [int(token) for token in data["tokens"]], data["logits"]


def nmse(got, want):
    """Normalized mean squared error."""
    return float(np.mean((got.astype(np.float64) - want) ** 2) / np.mean(want.astype(np.float64) ** 2))


def run_backend(backend, tokens, chunk=None, pages=None, slots=(0, 0)):
    """Logits of every position, f32 [tokens, vocab], fed in steps of `chunk` tokens (None: all at once).

    `slots` are the two state slots that the sequence goes back and forth between.
    """
    chunk = chunk or len(tokens)
    pages = pages or list(range(-(-len(tokens) // PAGE_SIZE)))
    logits = []
    for step, start in enumerate(range(0, len(tokens), chunk)):
        part = tokens[start : start + chunk]
        rows = SequenceRows(0, len(part), start, pages, slots[step % 2], slots[(step + 1) % 2])
        logits.append(backend.execute(Batch(part, [rows], range(len(part)))).copy())
    return np.concatenate(logits)


def run_together(backend, sequences, chunks):
    """Logits of every position of several sequences, each fed in chunks of its own size, all in shared steps.

    Sequences that are at their end stay out of further steps; pages of the sequences alternate.
    """
    table = max(-(-len(tokens) // PAGE_SIZE) for tokens in sequences)
    pages = [[i + len(sequences) * p for p in range(table)] for i in range(len(sequences))]
    done = [0] * len(sequences)
    logits = [[] for _ in sequences]
    while any(at < len(tokens) for at, tokens in zip(done, sequences, strict=True)):
        batch, rows, members = [], [], []
        for i, tokens in enumerate(sequences):
            part = tokens[done[i] : done[i] + chunks[i]]
            if part:
                rows.append(SequenceRows(len(batch), len(part), done[i], pages[i], i, i))
                members.append(i)
                batch += part
                done[i] += len(part)
        out = backend.execute(Batch(batch, rows, range(len(batch))))
        for i, row in zip(members, rows, strict=True):
            logits[i].append(out[row.start : row.start + row.count].copy())
    return [np.concatenate(parts) for parts in logits]


class HollowFile:
    """A model file with metadata and tensor shapes but no tensor data: enough to build a graph from."""

    def __init__(self, skeleton):
        self.path = Path("hollow.gguf")
        values = {key: _value(kind, value) for key, kind, value in skeleton["metadata"]}
        self.architecture = skeleton["architecture"]
        self.meta = Metadata(values, self.path, self.architecture + ".")
        self.tensors = {
            name: SimpleNamespace(name=name, shape=tuple(shape)) for name, shape, _ in skeleton["tensors"]
        }


def _value(kind, value):
    return np.array(value) if isinstance(kind, list) and kind[0] != "STRING" else value
