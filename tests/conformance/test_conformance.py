"""Small models against logits that llama.cpp computed from the same files: whole, in chunks, and in company.

A case is `archs/NAME.json` (metadata and shapes; fill.py draws the weights) and `expected/NAME.npz`.
"""

import collections

import numpy as np
import pytest
from support import (
    CONFORMANCE,
    MAX_NMSE,
    conformance_file,
    conformance_names,
    expected,
    nmse,
    run_backend,
    run_together,
    skeleton,
)

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.reference import ReferenceBackend
from edgellm.gguf import open_gguf

CONFIG = BackendConfig(kv_type="f32", num_pages=12, num_slots=4, max_tokens=256, max_outputs=256)


@pytest.fixture
def load(tmp_path_factory):
    def load(name, root=CONFORMANCE):
        with open_gguf(conformance_file(name, tmp_path_factory, root)) as file:
            return ReferenceBackend(models.build(file), file, CONFIG)

    return load


@pytest.mark.parametrize("name", conformance_names())
def test_logits_are_those_of_the_reference(load, name):
    tokens, logits = expected(name)
    backend = load(name)
    assert nmse(run_backend(backend, tokens), logits) <= MAX_NMSE
    assert nmse(run_backend(backend, tokens, 7, pages=[5, 2], slots=(1, 3)), logits) <= MAX_NMSE


@pytest.mark.parametrize("name", conformance_names())
def test_logits_are_the_same_in_company(load, name):
    tokens, logits = expected(name)
    others = [list(reversed(tokens)), tokens[5:25]]
    got = run_together(load(name), [others[0], tokens, others[1]], [11, 7, 20])
    assert nmse(got[1], logits) <= MAX_NMSE
    assert nmse(got[2], run_backend(load(name), others[1])) <= MAX_NMSE


@pytest.mark.parametrize("name", conformance_names())
def test_every_weight_matters(load, name):
    """A graph that left one out would still agree with itself."""
    with_weights = load(name).graph.weights()
    names = {tensor for tensor, _, _ in skeleton(name)["tensors"]}
    spare = {"cls.output.weight"}  # a reranker's head, beside the model
    if "blk.0.attn_qkv.weight" in names:
        spare.add("blk.0.ssm_in.weight")
    assert names - set(with_weights) <= spare


@pytest.mark.parametrize("architecture", sorted(models.architectures()))
def test_reference_cases_of_an_architecture(load, shared, architecture):
    root = shared("conformance")
    names = [n for n in conformance_names(root) if skeleton(n, root)["architecture"] == architecture]
    if not names:
        pytest.skip(f"there is no reference case of {architecture}")
    for name in names:
        tokens, logits = expected(name, root)
        backend = load(name, root)
        assert nmse(run_backend(backend, tokens), logits) <= MAX_NMSE, name
        assert nmse(run_backend(backend, tokens, 7), logits) <= MAX_NMSE, name


def test_reference_cases_of_unknown_architectures_are_counted(shared):
    root = shared("conformance")
    known = models.architectures()
    counts = collections.Counter(skeleton(n, root)["architecture"] in known for n in conformance_names(root))
    assert counts[True] >= len(conformance_names()) // 2
    pytest.skip(f"{counts[False]} of {counts.total()} reference cases have architectures that are not here")


def test_the_measure_sees_a_wrong_scale(load):
    tokens, logits = expected("llama-dense")
    assert nmse(run_backend(load("llama-dense"), tokens) * np.float32(1.002), logits) > MAX_NMSE
