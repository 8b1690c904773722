"""`edgellm inspect`, and that what it predicts is what loading holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support import conformance_file, conformance_names
from tiny import CONTEXT, LAYERS, tiny_llama

from edgellm import models
from edgellm.backends.base import PAGE_SIZE, BackendConfig
from edgellm.backends.cpu import weights
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.cli.contents import read_contents
from edgellm.cli.footprint import footprint, predict
from edgellm.gguf import TensorType, open_gguf, write_gguf

KEYS = {
    "architecture", "name", "parameters", "file_bytes", "tensor_types", "context_length", "chat_template",
    "memory",
}  # fmt: skip
PARTS = ("weights", "kv_cache", "scratch", "process")
MEMORY = {*PARTS, "total", "available", "fits"}
MIXED = {"attn_q": TensorType.Q8_0, "ffn_down": TensorType.F16, "token_embd": TensorType.Q8_0}


@pytest.fixture
def tiny(tmp_path):
    return tiny_llama(tmp_path / "tiny.gguf", MIXED, metadata={"general.name": "Tiny"})


def test_what_is_in_a_file(cli, tiny):
    ended = cli("inspect", str(tiny), "--json")
    assert ended.code == 0, ended.err
    found = ended.json
    assert found.keys() >= KEYS
    assert found["memory"].keys() >= MEMORY
    assert (found["architecture"], found["name"]) == ("llama", "Tiny")
    assert (found["context_length"], found["chat_template"]) == (CONTEXT, False)
    assert found["file_bytes"] == tiny.stat().st_size
    assert found["tensor_types"] == {
        "Q8_0": LAYERS + 1, "F16": LAYERS, "F32": 5 * LAYERS + 2 * LAYERS + 1
    }  # fmt: skip
    layer = 256 * 256 * 2 + 256 * 64 * 2 + 3 * 256 * 512 + 2 * 256
    assert found["parameters"] == 300 * 256 + 256 + LAYERS * layer
    assert found["problem"] is None


def test_memory_adds_up_and_grows_with_the_context(cli, tiny):
    small, large = (cli("inspect", str(tiny), "--ctx", str(n), "--json").json["memory"] for n in (64, 512))
    for memory in (small, large):
        assert memory["total"] == sum(memory[part] for part in PARTS)
        assert memory["fits"] == (memory["total"] <= memory["available"])
    assert large["kv_cache"] == 8 * small["kv_cache"] == 512 * LAYERS * 2 * 64 * 2
    assert large["weights"] == small["weights"]


@pytest.mark.parametrize("kind", [k.name for k in weights.FORMS])
@pytest.mark.parametrize("sizes", [{}, {"num_pages": 3, "max_tokens": 32, "threads": 1}])
def test_the_prediction_is_what_loading_holds(tmp_path, kind, sizes):
    path = tiny_llama(tmp_path / "tiny.gguf", default=TensorType[kind])
    config = BackendConfig(**sizes)
    with open_gguf(path) as file:
        graph = models.build(file)
        predicted = predict(graph, file, config)
        backend = CPUBackend(graph, file, config)
        assert predicted == backend.memory()
        backend.close()


@pytest.mark.parametrize("name", conformance_names())
def test_every_family_can_be_inspected(name, tmp_path_factory):
    with open_gguf(conformance_file(name, tmp_path_factory)) as file:
        contents = read_contents(file)
        assert contents.memory is not None
        assert contents.memory.total > 0
        assert contents.memory.estimated == (contents.problem is not None)


def test_no_matrix_is_read(tiny, monkeypatch):
    """Only vectors: what has more than one dimension stays in the file."""
    with open_gguf(tiny) as file:
        read, data = [], file.data
        monkeypatch.setattr(file, "data", lambda name: read.append(name) or data(name))
        read_contents(file)
        assert read
        assert all(len(file.tensors[name].shape) == 1 for name in read)


def test_a_file_cannot_speak_to_the_terminal(cli, tmp_path):
    name = "evil\x1b]0;title\x07\x9b31m name\nproblem none"
    path = tiny_llama(tmp_path / "evil.gguf", metadata={"general.name": name})
    assert cli("inspect", str(path)).out.splitlines()[0] == "name           evil]0;title31m nameproblem none"
    assert cli("inspect", str(path), "--json").json["name"] == name
    write_gguf(path, "new\x1b[31m", {}, {"a.weight": np.ones((4, 8), np.float32)})
    assert "\x1b" not in cli("inspect", str(path)).out


def test_an_unknown_architecture_is_shown_and_said(cli, tmp_path):
    path = tmp_path / "new.gguf"
    write_gguf(path, "brandnew", {"brandnew.context_length": 99}, {"a.weight": np.ones((4, 8), np.float32)})
    ended = cli("inspect", str(path), "--json")
    assert ended.code == 0
    found = ended.json
    assert (found["architecture"], found["context_length"], found["parameters"]) == ("brandnew", 99, 32)
    assert found["memory"] is None
    assert "brandnew" in found["problem"]
    assert "not supported" in cli("inspect", str(path)).out


def test_a_type_without_kernels_is_said_and_memory_estimated(cli, tiny, monkeypatch):
    monkeypatch.delitem(weights.FORMS, TensorType.Q8_0)
    found = cli("inspect", str(tiny), "--json").json
    assert "Q8_0" in found["problem"]
    assert found["memory"]["estimated"]
    assert found["memory"]["weights"] > 0


def test_an_estimate_is_near_the_prediction(tiny, monkeypatch):
    with open_gguf(tiny) as file:
        graph, config = models.build(file), BackendConfig()
        exact = predict(graph, file, config)
        monkeypatch.delitem(weights.FORMS, TensorType.Q8_0)
        estimated, problem = footprint(graph, file, config)
    assert problem is not None
    assert estimated["kv_cache"] == exact["kv_cache"]
    assert estimated["weights"] == pytest.approx(exact["weights"], rel=0.2)


def test_a_file_without_weights_is_shown(cli, shared):
    for path in sorted(shared("vocabs").glob("*.gguf"))[:4]:
        found = cli("inspect", str(path), "--json").json
        assert found["parameters"] == 0
        assert found["memory"] is None
        assert found["problem"]


def test_what_does_not_fit_says_what_would(cli, tiny, monkeypatch):
    whole = cli("inspect", str(tiny), "--json").json["memory"]
    page = whole["kv_cache"] // (CONTEXT // PAGE_SIZE)
    available = whole["total"] - page // 2
    monkeypatch.setattr("edgellm.cli.contents.available_memory", lambda: available)
    memory = cli("inspect", str(tiny), "--json").json["memory"]
    assert (memory["fits"], memory["most_context"]) == (False, CONTEXT - PAGE_SIZE)
    shown = cli("inspect", str(tiny)).out
    assert "does not fit" in shown
    assert f"--ctx {CONTEXT - PAGE_SIZE}" in shown
    assert cli("inspect", str(tiny), "--ctx", str(CONTEXT - PAGE_SIZE), "--json").json["memory"]["fits"]


def test_where_not_even_the_weights_fit_no_context_is_promised(cli, tiny, monkeypatch):
    monkeypatch.setattr("edgellm.cli.contents.available_memory", lambda: 1000)
    memory = cli("inspect", str(tiny), "--json").json["memory"]
    assert (memory["fits"], memory["most_context"]) == (False, 0)
    assert "take a smaller model, or --low-memory" in cli("inspect", str(tiny)).out
    assert cli("inspect", str(tiny), "--low-memory").out.rstrip().endswith("take a smaller model")


@pytest.mark.parametrize(
    ("name", "value"),
    [("general.name", 7), ("tokenizer.chat_template", ["a", "b"]), ("tokenizer.ggml.tokens", 3)],
)
def test_metadata_of_another_type_is_none(cli, tmp_path, name, value):
    path = tiny_llama(tmp_path / "odd.gguf", metadata={name: value})
    found = cli("inspect", str(path), "--json").json
    assert found["name"] is None
    assert found["chat_template"] is False
    assert found["memory"]["process"] > 0


def test_a_context_that_the_model_was_not_made_for_is_wrong_usage(cli, tiny):
    ended = cli("inspect", str(tiny), "--ctx", str(CONTEXT + 1), "--json")
    assert (ended.code, ended.out) == (2, "")
    assert str(CONTEXT) in ended.err


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>"])
def test_what_is_no_model_file_is_an_error(cli, tmp_path, content):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    ended = cli("inspect", str(path), "--json")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.count("\n") == 1


def test_memory_of_a_smaller_cache_and_of_weights_left_in_the_file(cli, tiny):
    full, half, pair, low = (
        cli("inspect", str(tiny), "--json", *options).json["memory"]
        for options in ((), ("--kv-type", "q8_0"), ("--kv-type", "f16,q8_0"), ("--low-memory",))
    )
    assert half["kv_cache"] < pair["kv_cache"] < full["kv_cache"]
    assert low["weights"] < full["weights"] / 10
    assert cli("inspect", str(tiny), "--kv-type", "f16,q9").code == 2


PEAK = """
import sys, threading, time
from pathlib import Path

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, anonymous())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
import edgellm
options = {"low_memory": True} if "--low-memory" in sys.argv else {}
with edgellm.LLM(sys.argv[1], context_length=int(sys.argv[2]), max_sequences=1, **options) as llm:
    params = edgellm.SamplingParams(temperature=0, ignore_eos=True)
    llm.chat([{"role": "user", "content": "word " * (int(sys.argv[2]) - 60)}], params=params)
print(peak)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's account of memory")
@pytest.mark.parametrize("options", [[], ["--low-memory"]], ids=["packed", "in the file"])
def test_a_process_takes_what_was_predicted(default_model, options):
    """At its peak, with its context full."""
    command = [sys.executable, "-m", "edgellm", "inspect", default_model, "--ctx", "1024", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    predicted = json.loads(done.stdout)["memory"]["total"]
    taken = subprocess.run(
        [sys.executable, "-c", PEAK, default_model, "1024", *options],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert taken.returncode == 0, taken.stderr
    assert int(taken.stdout) == pytest.approx(predicted, abs=max(0.05 * predicted, 32 << 20))
