"""What is begun while a model is on its way."""

from __future__ import annotations

import pytest
from tiny import tiny_llama

from edgellm import early, hub, models
from edgellm.backends.base import BackendConfig
from edgellm.backends.cpu import backend as cpu
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.gguf import TensorType, open_gguf
from edgellm.hub.source import Head

CONFIG = BackendConfig(num_pages=8, max_tokens=32, max_outputs=8, threads=2)
KINDS = {"attn_v": TensorType.Q6_K, "ffn_down": TensorType.Q8_0}


@pytest.fixture
def model(tmp_path):
    return tiny_llama(tmp_path / "m.gguf", default=TensorType.Q4_0, kinds=KINDS)


def watched(monkeypatch, heads, reports, prepare):
    """What `progress` was told, when the hub had these beginnings, one for each look."""
    told, left = [], iter(heads)
    monkeypatch.setattr(hub, "head", lambda name: next(left))
    watch = early.Watch("a-model", prepare, lambda *report: told.append(report))
    for report in reports:
        watch(*report)
    assert next(left, None) is None
    return told


def test_the_beginning_of_a_file_is_enough(model, monkeypatch):
    """As much as all but the tensors; less is not, and is tried again; none is looked at twice."""
    raw = model.read_bytes()
    with open_gguf(model) as file:
        start = min(info.offset for info in file.tensors.values())
        names = set(file.tensors)
    seen = []
    heads = [None, Head(raw[: start - 100], len(raw)), Head(raw[:start], len(raw))]
    reports = [("downloading", done << 20, None) for done in (0, 3, 4, 5, 15, 17, 30, 32, 33, 100)]
    told = watched(
        monkeypatch, heads, reports, lambda file: seen.append((set(file.tensors), file.file_bytes))
    )
    assert seen == [(names, len(raw))]
    assert told == [(what, done, 0) for what, done, _ in reports]


def test_what_was_seen_is_not_looked_for_again(model, monkeypatch):
    raw = model.read_bytes()
    seen = []
    reports = [("downloading", done << 20, 100 << 20) for done in (4, 16, 32)]
    watched(monkeypatch, [Head(raw, len(raw))], reports, lambda file: seen.append(file.architecture))
    assert seen == ["llama"]


@pytest.mark.parametrize(
    "raw", [b"", b"GGUF", b"not a model" * 100], ids=["nothing", "magic", "another file"]
)
def test_what_is_no_model_is_left_for_later(monkeypatch, raw):
    watched(
        monkeypatch, [Head(raw, 9999)], [("downloading", 5 << 20, None)], lambda file: pytest.fail("opened")
    )


def test_what_goes_wrong_does_not_stop_the_download(model, monkeypatch):
    raw = model.read_bytes()
    reports = [("downloading", done << 20, None) for done in (4, 16)]
    told = watched(monkeypatch, [Head(raw, len(raw))] * 2, reports, lambda file: {}["x"])
    assert len(told) == 2


def test_its_kernels_are_those_that_the_model_is_loaded_with(model, monkeypatch, tmp_path):
    begun, loaded = [], []
    monkeypatch.setattr(cpu, "begin_kernels", begun.extend)
    load = cpu.load_kernels
    monkeypatch.setattr(cpu, "load_kernels", lambda names, p: loaded.extend(names) or load(names, p))
    raw = model.read_bytes()
    with open_gguf(model) as file:
        CPUBackend(models.build(file), file, CONFIG).close()
        start = min(info.offset for info in file.tensors.values())
    beginning = tmp_path / "beginning.gguf"
    beginning.write_bytes(raw[:start] + bytes(len(raw) - start))
    with open_gguf(beginning) as file:
        CPUBackend.prepare(models.build(file), file, CONFIG)
    assert begun == loaded
    assert {"matmul.q4_0", "matmul.q6_k", "pack.q8_0", "team.run", "sample.draw"} <= set(begun)
