"""`edgellm bench`."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest
from tiny import tiny_llama

from edgellm import backends
from edgellm.backends.reference import ReferenceBackend
from edgellm.cli.bench import numbers
from edgellm.errors import UsageError


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A tiny model on the reference backend, which has nothing to compile."""
    monkeypatch.setattr(backends, "find", lambda name: ReferenceBackend)
    return str(tiny_llama(tmp_path / "tiny.gguf"))


def test_every_combination_is_measured(cli, model):
    sizes = ["--prompt-tokens", "40", "--gen-tokens", "3", "--repeat", "2"]
    results = cli("bench", model, *sizes, "--threads", "1,2", "--batch", "1,3", "--json").json
    assert [(r["threads"], r["batch"], r["test"]) for r in results] == [
        (t, b, test) for t in (1, 2) for b in (1, 3) for test in ("pp40", "tg3")
    ]
    for result in results:
        assert len(result["samples"]) == 2
        assert min(result["samples"]) <= result["tokens_per_second"] <= max(result["samples"])
        assert result["gigabytes_per_second"] > 0


def test_gigabytes_are_weights_times_steps(cli, model):
    from edgellm import models
    from edgellm.gguf import open_gguf

    with open_gguf(model) as file:
        weights = sum(file.tensors[w].nbytes for w in models.build(file).weights())
    one = ["--prompt-tokens", "300", "--gen-tokens", "4", "--threads", "1", "--repeat", "1", "--json"]
    prompt, generated = cli("bench", model, *one).json
    # 300 tokens are two steps (256 and 44), 4 generated ones are four.
    assert prompt["gigabytes_per_second"] == pytest.approx(weights * 2 * prompt["samples"][0] / 300 / 1e9)
    assert generated["gigabytes_per_second"] == pytest.approx(weights * generated["samples"][0] / 1e9)


def test_control_c_ends_a_step(cli, model, monkeypatch):
    running, cancelled = threading.Event(), threading.Event()

    class Endless(ReferenceBackend):
        def execute(self, batch):
            running.set()
            assert cancelled.wait(20)
            return np.zeros((len(batch.outputs), self.graph.vocab_size), np.float32)

        def cancel(self):
            cancelled.set()

    def interrupt():
        running.wait(20)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(backends, "find", lambda name: Endless)
    presser = threading.Thread(target=interrupt)
    presser.start()
    assert cli("bench", model, "--threads", "1").code == 130
    presser.join()
    assert cancelled.is_set()


def test_a_test_of_no_tokens_is_left_out(cli, model):
    ended = cli(
        "bench", model, "--prompt-tokens", "0", "--gen-tokens", "2", "--threads", "1", "--repeat", "1"
    )
    assert ended.code == 0
    assert ended.out.startswith("tg2")
    assert ended.out.count("\n") == 1


def test_no_test_at_all_is_wrong_usage(cli, model):
    ended = cli("bench", "--prompt-tokens", "0", "--gen-tokens", "0")
    assert ended.code == 2
    assert "--prompt-tokens and --gen-tokens are both 0" in ended.err


def test_more_tokens_than_the_context_is_wrong_usage(cli, model):
    ended = cli("bench", model, "--prompt-tokens", "5000")
    assert ended.code == 2
    assert "1024" in ended.err


def test_a_table_that_is_only_looked_up_is_not_counted(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "find", lambda name: ReferenceBackend)
    sizes = ["--prompt-tokens", "0", "--gen-tokens", "1", "--threads", "1", "--repeat", "1", "--json"]
    read = []
    for name in ("tied", "untied"):
        path = tiny_llama(tmp_path / f"{name}.gguf", tied=name == "tied")
        [result] = cli("bench", str(path), *sizes).json
        read.append(result["gigabytes_per_second"] / result["samples"][0])
    assert read[0] == pytest.approx(read[1])


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "-1", "1.5", "9999", "1" * 5000])
def test_numbers_that_are_none(text):
    with pytest.raises(UsageError, match="from 1 to 4096") as caught:
        numbers(text, "batch", 4096)
    assert len(str(caught.value)) < 120


def test_numbers():
    assert numbers("1, 8", "batch", 8) == [1, 8]


def test_a_profile_names_the_ops(cli, tmp_path):
    path = str(tiny_llama(tmp_path / "tiny.gguf"))
    sizes = ["--prompt-tokens", "8", "--gen-tokens", "2", "--repeat", "1", "--threads", "1", "--profile"]
    prompt, generated = cli("bench", path, *sizes, "--json").json
    for result in (prompt, generated):
        assert {"attend", "rms_norm", "outside the plan"} <= {op["op"] for op in result["profile"]}
        assert any("ffn_down" in op["op"] and op["gigaoperations_per_second"] > 0 for op in result["profile"])
    shown = cli("bench", path, *sizes)
    assert "attend" in shown.out
    assert "GOPS" in shown.out


def test_a_backend_without_a_profile_says_so(cli, model):
    ended = cli("bench", model, "--prompt-tokens", "8", "--gen-tokens", "0", "--threads", "1", "--profile")
    assert ended.code == 1
    assert "cpu backend" in ended.err
