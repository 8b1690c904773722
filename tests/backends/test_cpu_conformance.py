"""The reference cases on kernels: every architecture that the CPU backend runs, f32 weights and f32 keys and values."""

from __future__ import annotations

import pytest
from support import conformance_file, conformance_names, expected, nmse, run_backend

from edgellm import models
from edgellm.backends.base import BackendConfig
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.gguf import open_gguf

CASES = ("llama-dense", "qwen2-dense", "qwen3-dense", "internlm2-dense", "smollm3-dense", "qwen3vl-dense")
