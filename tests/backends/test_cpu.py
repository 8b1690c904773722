"""The CPU backend against the reference, and the promise: the same bits in any company, cut and thread
count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tiny import KV_HEADS, LAYERS, VOCAB, tiny_llama

from edgellm import models
from edgellm.backends.base import PAGE_SIZE, BackendConfig, Batch, SequenceRows, page_bytes
from edgellm.backends.cpu import weights
from edgellm.backends.cpu.backend import CPUBackend
from edgellm.backends.cpu.lower import float_bits
from edgellm.backends.cpu.threads import default_threads
from edgellm.backends.cpu.weights import FORMS
from edgellm.backends.reference import ReferenceBackend
from edgellm.config import load_config
from edgellm.errors import UnsupportedError, UsageError
from edgellm.gguf import TensorType, open_gguf
from edgellm.graph import ops
from edgellm.simd import targets

CONFIG = BackendConfig(kv_type="f16", num_pages=64, max_tokens=128, max_outputs=128, threads=2)
MIXED = {
    "attn_v": TensorType.Q6_K,
    "attn_k": TensorType.Q8_0,
    "ffn_down": TensorType.Q6_K,
    "token_embd": TensorType.Q8_0,
}
PROMPT = np.random.default_rng(3).integers(0, VOCAB, 90).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def load(path: Path, cls=CPUBackend, config: BackendConfig = CONFIG):
    file = open_gguf(path)
    return cls(models.build(file), file, config)


def feed(backend, tokens: list[int], cut: int = 10**6, pages: list[int] | None = None) -> np.ndarray:
    """Logits of every position, the prompt cut into steps."""
    pages = pages or list(range(8))
    out = []
    for i in range(0, len(tokens), cut):
        part = tokens[i : i + cut]
        rows = SequenceRows(0, len(part), i, pages)
        out.append(backend.execute(Batch(part, [rows], list(range(len(part))))).copy())
    return np.concatenate(out)


@pytest.mark.parametrize("kind", FORMS, ids=lambda k: k.name)
def test_every_type_agrees_with_the_reference(folder, kind):
    path = tiny_llama(folder / f"{kind.name}.gguf", default=kind)
    got, want = feed(load(path), PROMPT), feed(load(path, ReferenceBackend), PROMPT)
    error = np.mean((got - want) ** 2) / np.mean(want**2)
    # Rounding activations to int8 costs about (1/127)^2 / 3 a product; keys and values are f16 in both.
    assert error < (1e-3 if FORMS[kind].quantized else 1e-6)


@pytest.mark.parametrize("shape", [(96, 3, 1, 1100), (1056, 33, 1, 1056), (1120, 35, 1, 2208)], ids=str)
def test_sizes_that_fill_no_group_of_panels_agree_with_the_reference(folder, shape):
    path = tiny_llama(folder / "odd.gguf", shape=shape)
    config = replace(CONFIG, kv_type="f32")
    got, want = feed(load(path, config=config), PROMPT), feed(load(path, ReferenceBackend, config), PROMPT)
    assert np.mean((got - want) ** 2) / np.mean(want**2) < 1e-9


@pytest.mark.parametrize("window", [2**31, 2**32 - 1, 2**64 - 1])
def test_a_window_beyond_the_context_is_none(folder, window):
    path = tiny_llama(folder / "plain.gguf")
    file = open_gguf(path)
    graph = models.build(file)
    graph.nodes = [
        replace(n, op=replace(n.op, window=window)) if isinstance(n.op, ops.Attention) else n
        for n in graph.nodes
    ]
    assert feed(CPUBackend(graph, file, CONFIG), PROMPT).tobytes() == feed(load(path), PROMPT).tobytes()


def test_angles_are_kept_for_positions_that_there_can_be(folder):
    path = tiny_llama(folder / "far.gguf", metadata={"llama.context_length": 1 << 24})
    config = replace(CONFIG, num_pages=8)
    assert load(path, config=config).memory()["scratch"] < 4 << 20
    near = tiny_llama(folder / "near.gguf")
    for cls in (CPUBackend, ReferenceBackend):
        assert feed(load(path, cls, config), PROMPT).tobytes() == feed(load(near, cls), PROMPT).tobytes()


def test_the_environment_says_how_many_threads_compute(folder, monkeypatch):
    monkeypatch.setenv("EDGELLM_THREADS", "3")
    assert default_threads() == 3
    path = tiny_llama(folder / "plain.gguf")
    assert load(path, config=replace(CONFIG, threads=None))._team.threads == 3
    assert load(path)._team.threads == CONFIG.threads


def test_a_setting_beyond_f32_is_refused():
    assert float_bits(1.0) == 0x3F800000
    with pytest.raises(UnsupportedError, match="1e\\+39"):
        float_bits(1e39)


def test_f32_keys_and_values_leave_only_f32_rounding(folder):
    path = tiny_llama(folder / "plain.gguf")
    config = BackendConfig(kv_type="f32", num_pages=8, max_tokens=128, max_outputs=128, threads=2)
    got, want = feed(load(path, config=config), PROMPT), feed(load(path, ReferenceBackend, config), PROMPT)
    assert np.mean((got - want) ** 2) / np.mean(want**2) < 1e-10


@pytest.fixture(scope="module", params=["Q4_0", "mixed"])
def model(request, folder):
    kinds = MIXED if request.param == "mixed" else None
    return tiny_llama(folder / f"bits-{request.param}.gguf", kinds, TensorType.Q4_0)


def test_one_thread_or_two_or_five(model):
    results = set()
    for threads in (1, 2, 5):
        config = BackendConfig(num_pages=64, max_tokens=128, max_outputs=128, threads=threads)
        results.add(feed(load(model, config=config), PROMPT).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("cut", [1, 7, 32, 50])
def test_prefilled_at_once_or_in_chunks(model, cut):
    backend = load(model)
    assert feed(backend, PROMPT, cut).tobytes() == feed(backend, PROMPT).tobytes()


def test_alone_or_in_a_batch_of_eight(model):
    backend = load(model)
    rng = np.random.default_rng(5)
    prompts = [rng.integers(0, VOCAB, n).tolist() for n in (1, 2, 3, 10, 17, 31, 32, 30)]
    alone = [feed(backend, p, pages=[40, 41]) for p in prompts]
    sequences, tokens = [], []
    for i, prompt in enumerate(prompts):
        sequences.append(SequenceRows(len(tokens), len(prompt), 0, [2 * i, 2 * i + 1]))
        tokens += prompt
    together = backend.execute(Batch(tokens, sequences, list(range(len(tokens))))).copy()
    assert together.tobytes() == np.concatenate(alone).tobytes()
    # And one more token each, decoded together.
    step = [SequenceRows(i, 1, len(p), [2 * i, 2 * i + 1]) for i, p in enumerate(prompts)]
    decoded = backend.execute(Batch([7] * 8, step, list(range(8)))).copy()
    for i, prompt in enumerate(prompts):
        assert decoded[i].tobytes() == feed(backend, [*prompt, 7], pages=[40, 41])[-1].tobytes()


def test_only_wanted_rows_come_out(model):
    backend = load(model)
    every = feed(backend, PROMPT)
    some = backend.execute(Batch(PROMPT, [SequenceRows(0, 90, 0, list(range(8)))], [89, 3])).copy()
    assert some.tobytes() == every[[89, 3]].tobytes()
    none = backend.execute(Batch(PROMPT, [SequenceRows(0, 90, 0, list(range(8)))], []))
    assert none.shape == (0, VOCAB)


def test_a_copied_page_serves_as_well(model):
    backend = load(model)
    want = feed(backend, PROMPT, pages=[0, 1, 2])[-1].copy()
    backend.copy_page(1, 30)
    backend.copy_page(2, 31)
    rows = SequenceRows(0, 1, 89, [0, 30, 31])
    assert backend.execute(Batch(PROMPT[89:], [rows], [0]))[0].tobytes() == want.tobytes()


def test_one_call_packs_no_more_bytes_than_take_a_moment(model, monkeypatch):
    def steps():
        done = []
        file = open_gguf(model)
        backend = CPUBackend(models.build(file), file, CONFIG, lambda what, n, _: done.append((what, n)))
        return [n for what, n in done if what == "packing weights"], feed(backend, PROMPT).tobytes()

    together, bits = steps()
    monkeypatch.setattr(weights, "_MOST_BYTES", 1)
    assert steps() == (list(range(together[-1] + 1)), bits)
    sizes = [t.nbytes for t in open_gguf(model).tensors.values()]
    monkeypatch.setattr(weights, "_MOST_BYTES", 2 * max(sizes))
    some, same = steps()
    assert same == bits
    assert len(together) < len(some) <= together[-1] // 2 + 2


def test_memory_is_what_the_tensors_need(folder, model):
    memory = load(model).memory()
    file_bytes = sum(t.nbytes for t in open_gguf(model).tensors.values())
    assert file_bytes * 0.9 < memory["weights"] < file_bytes * 1.1
    assert memory["kv_cache"] == 64 * PAGE_SIZE * LAYERS * KV_HEADS * 32 * 2 * 2


def test_what_has_no_kernel_is_refused_by_name(folder, monkeypatch):
    monkeypatch.delitem(FORMS, TensorType.Q5_0)
    path = tiny_llama(folder / "q5.gguf", {"ffn_up": TensorType.Q5_0})
    with pytest.raises(UnsupportedError, match=r"ffn_up.*Q5_0.*Q4_0"):
        load(path)
    with pytest.raises(UsageError, match="kv_type 'q3' is not one of"):
        BackendConfig(kv_type="q3")


# Tests of kernels that say nothing of the target they run on.
APART = ("test_arm_loops.py", "test_cache.py", "test_compilers.py", "test_kernel_speed.py", "test_objects.py")


@dataclass(frozen=True)
class Suite:
    """A process that runs this file's and the kernels' tests on one target."""

    target: str

    def __call__(self) -> subprocess.CompletedProcess[str]:
        tests = Path(__file__).resolve().parents[1]
        where = [
            str(tests / "kernels"),
            __file__,
            *(f"--ignore={tests / 'kernels' / name}" for name in APART),
        ]
        # Mapped kernels are these kernels, and take as long to compile.
        chosen = ["-m", "not slow", "-k", "not from_the_map"]
        command = [sys.executable, "-m", "pytest", "-q", "-x", *where, *chosen]
        environment = os.environ | {"EDGELLM_TARGET": self.target}
        return subprocess.run(
            command, env=environment, cwd=tests.parent, capture_output=True, text=True, timeout=600
        )


OTHERS = [t.name for t in targets.available() if t != targets.choose()]


@pytest.mark.skipif(load_config().target is not None, reason="already a process of one target")
@pytest.mark.parametrize("job", [Suite(name) for name in OTHERS], ids=OTHERS)
def test_kernels_and_bits_on_every_other_target_of_this_machine(job, ahead):
    """This file's and the kernels' tests again, each target in a process of its own."""
    run = ahead(job)
    assert run.returncode == 0, run.stdout[-3000:]


def test_the_profile_accounts_for_the_whole_of_each_step(folder):
    backend = load(tiny_llama(folder / "profiled.gguf", default=TensorType.Q8_0, kinds=MIXED))
    profile = backend.profile()
    began = time.perf_counter()
    feed(backend, PROMPT, cut=45)
    spent = time.perf_counter() - began
    rows = {row.op: row for row in profile.rows()}
    assert spent / 3 < sum(row.seconds for row in rows.values()) <= spent
    assert min(row.seconds for row in rows.values()) >= 0
    # Two steps, in each of which every layer attends: 90 rows to 1 + 2 + ... + 90 keys.
    heads, head_dim = backend.graph.caches[0].num_kv_heads, backend.graph.caches[0].key_dim
    attend = rows["attend"]
    assert attend.count == 2 * LAYERS
    assert attend.bytes == LAYERS * 2 * 2 * heads * head_dim * (45 + 90)
    assert attend.operations % (4 * LAYERS * head_dim * 90 * 91 // 2) == 0
    logits = rows["output q8_0"] if "output q8_0" in rows else rows["token_embd q8_0"]
    assert logits.count == 2
    assert logits.gigaoperations_per_second > 0


@pytest.mark.parametrize("kind", FORMS, ids=lambda k: k.name)
def test_from_the_map_the_bits_are_the_same(folder, kind):
    path = tiny_llama(folder / f"{kind.name}.gguf", default=kind)
    packed, mapped = load(path), load(path, config=replace(CONFIG, low_memory=True))
    assert feed(mapped, PROMPT, cut=70).tobytes() == feed(packed, PROMPT, cut=70).tobytes()
    assert mapped.memory()["weights"] < packed.memory()["weights"] / 10


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_long_contexts_give_the_same_bits_to_one_thread_and_to_many(folder, threads):
    """A row with several spans of keys is shared among threads where there are few rows."""
    path = tiny_llama(folder / "long.gguf", default=TensorType.Q8_0)
    tokens = np.random.default_rng(4).integers(0, VOCAB, 600).tolist()
    config = replace(CONFIG, threads=threads)
    pages = list(range(19, 0, -1))
    whole = feed(load(path, config=replace(CONFIG, threads=1)), tokens, cut=128, pages=pages)
    backend = load(path, config=config)
    prefix = feed(backend, tokens[:560], cut=100, pages=pages)
    rows = [
        backend.execute(Batch([token], [SequenceRows(0, 1, 560 + i, pages)], [0])).copy()
        for i, token in enumerate(tokens[560:])
    ]
    assert np.concatenate([prefix, *rows]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("kv_type", ["q8_0", ("q8_0", "f16"), ("f16", "q8_0"), ("f32", "q8_0")])
def test_caches_of_every_type_agree_with_the_reference(folder, kv_type):
    path = tiny_llama(folder / "plain.gguf")
    config = replace(CONFIG, kv_type=kv_type)
    got, want = feed(load(path, config=config), PROMPT), feed(load(path, ReferenceBackend, config), PROMPT)
    assert np.mean((got - want) ** 2) < 1e-4 * np.mean(want**2)
    held = CONFIG.num_pages * page_bytes(load(path).graph, config.kv_types)
    assert load(path, config=config).memory()["kv_cache"] == held
    assert feed(load(path, config=config), PROMPT, cut=7).tobytes() == got.tobytes()
