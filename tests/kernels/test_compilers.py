"""Who compiles what, and how many do."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from edgellm.kernels import compilers
from edgellm.kernels.compilers import Queue


@pytest.mark.parametrize(
    ("cores", "available", "kernels", "workers"),
    [
        (4, 8 << 30, 12, 4),
        (4, 700 << 20, 12, 2),
        (4, 300 << 20, 12, 1),
        (4, 1 << 20, 12, 1),
        (4, None, 3, 3),
        (2, None, 9, 2),
    ],
)
def test_compilers_are_as_many_as_fit_into_memory(monkeypatch, cores, available, kernels, workers):
    monkeypatch.setattr(compilers.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(compilers, "available_memory", lambda: available)
    assert compilers._worker_count(kernels) == workers


def test_what_takes_longest_goes_first():
    queue = Queue(["pack.q4_0", "pointwise.gather", "matmul.q4_0", "embed.f32", "sample.draw"])
    taken = [queue.take(None) for _ in range(6)]
    assert taken == ["sample.draw", "matmul.q4_0", "pointwise.gather", "pack.q4_0", "embed.f32", None]


def test_who_has_compiled_one_of_a_family_goes_on_with_it():
    queue = Queue(["matmul.q4_0", "matmul.q8_0", "quantize.rows", "pointwise.glu_silu", "team.run"])
    assert queue.take(None) == "matmul.q4_0"
    assert queue.take(None) == "quantize.rows"  # not the other product: somebody is at those
    assert queue.take("matmul.q4_0") == "matmul.q8_0"
    assert queue.take("matmul.q8_0") == "team.run"
    assert queue.take("team.run") == "pointwise.glu_silu"  # rather than nothing
    assert queue.take("quantize.rows") is None


def test_who_is_done_first_takes_the_next_kernel():
    def child(seconds):
        body = f"    time.sleep({seconds})\n    print(line, end='', flush=True)"
        loop = f"import sys, time\nfor line in sys.stdin:\n{body}"
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", loop], stdin=pipe, stdout=pipe, text=True)

    names = ["pointwise.gather", "matmul.q4_0", "embed.f32", "sample.draw"]
    children, calls = [child(60), child(0)], []
    try:
        # The first child is never done, and takes one; the other has done the rest when it is stopped.
        threading.Timer(3, children[0].kill).start()
        compilers._hand_out(Queue(names), children, lambda *args: calls.append(args))
    finally:
        for each in children:
            compilers._end(each)
    assert calls == [("compiling kernels", done, 4) for done in range(4)]
