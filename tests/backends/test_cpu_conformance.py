"""Reference cases on kernels, with f32 weights, keys and values: what must run, and that nothing else goes
wrong.
"""

from __future__ import annotations

import pytest
from support import MAX_NMSE, conformance_file, conformance_names, expected, nmse, run_backend

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.errors import UnsupportedError
from edgellm.gguf import open_gguf

MUST_RUN = {"gemma3-dense", "granite-scales", "llama-dense", "qwen2-dense", "qwen3-dense", "smollm3-8-layers"}
CONFIG = BackendConfig(kv_type="f32", num_pages=16, max_tokens=256, max_outputs=256, threads=2)


@pytest.mark.parametrize("name", conformance_names())
@pytest.mark.parametrize("chunk", [None, 7], ids=["at once", "in sevens"])
def test_logits_are_the_reference_ones(name, chunk, tmp_path_factory):
    tokens, want = expected(name)
    file = open_gguf(conformance_file(name, tmp_path_factory))
    try:
        backend = CPUBackend(models.build(file), file, CONFIG)
    except UnsupportedError as error:
        if name in MUST_RUN:
            raise
        pytest.skip(str(error))
    assert nmse(run_backend(backend, tokens, chunk), want) < MAX_NMSE
