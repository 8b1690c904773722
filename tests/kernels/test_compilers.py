"""Who compiles what, and how many do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from edgellm.errors import EdgeLLMError
from edgellm.kernels import compilers
from edgellm.kernels.compilers import Compilers, Queue
from edgellm.simd import targets


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
    queue = Queue()
    queue.add(["pack.q4_0", "pointwise.gather", "matmul.q4_0"])
    queue.add(["embed.f32", "sample.draw"])
    taken = [queue.take(None) for _ in range(6)]
    assert taken == ["sample.draw", "matmul.q4_0", "pointwise.gather", "pack.q4_0", "embed.f32", None]


def test_who_has_compiled_one_of_a_family_goes_on_with_it():
    queue = Queue()
    queue.add(["matmul.q4_0", "matmul.q8_0", "quantize.rows", "pointwise.glu_silu", "team.run"])
    assert queue.take(None) == "matmul.q4_0"
    assert queue.take(None) == "quantize.rows"  # not the other product: somebody is at those
    assert queue.take("matmul.q4_0") == "matmul.q8_0"
    assert queue.take("matmul.q8_0") == "team.run"
    assert queue.take("team.run") == "pointwise.glu_silu"  # rather than nothing
    assert queue.take("quantize.rows") is None


class Children:
    """What takes the compilers' place: processes that take so many seconds for a kernel, and nothing else."""

    def __init__(self, monkeypatch, seconds):
        self.started, self._seconds = [], iter(seconds)
        monkeypatch.setattr(compilers, "_start", self.start)
        monkeypatch.setattr(compilers, "_worker_count", lambda kernels: min(kernels, 2))

    def start(self, target, folder):
        body = f"    time.sleep({next(self._seconds)})\n    print(line, end='', flush=True)"
        loop = f"import sys, time\nfor line in sys.stdin:\n{body}"
        pipe = subprocess.PIPE
        self.started.append(
            subprocess.Popen([sys.executable, "-c", loop], stdin=pipe, stdout=pipe, text=True)
        )
        return self.started[-1]


@pytest.fixture
def group(tmp_path):
    return Compilers(targets.choose(), tmp_path)


NAMES = ["pointwise.gather", "matmul.q4_0", "embed.f32", "sample.draw"]


def test_who_is_done_first_takes_the_next_kernel(monkeypatch, group):
    children, calls = Children(monkeypatch, [60, 0]), []
    group.add(NAMES, lambda *args: calls.append(args))
    # The first child is never done, and takes one; the other has done the rest when it is stopped.
    threading.Timer(3, children.started[0].kill).start()
    group.wait()
    assert calls == [("compiling kernels", done, 4) for done in range(4)]
    assert [child.poll() is None for child in children.started] == [False, False]


def test_more_may_be_asked_for_while_they_are_at_it_and_after(monkeypatch, group):
    children, calls = Children(monkeypatch, [0.3, 0.3, 0, 0]), []
    group.add(NAMES[:2])
    group.add(NAMES[1:3], lambda *args: calls.append(args))
    group.wait()
    assert calls == [("compiling kernels", done, 3) for done in range(4)]
    assert len(children.started) == 2
    group.add(NAMES[:3])  # nothing new
    assert len(children.started) == 2
    group.add(NAMES)
    group.wait()
    assert len(children.started) == 3
    assert calls == [("compiling kernels", done, 3) for done in range(4)]


def test_who_talks_of_something_else_is_not_done(monkeypatch, group):
    def start(target, folder):
        program = (
            "import sys\nfor line in sys.stdin:\n    print('hello')\n    print(line, end='', flush=True)"
        )
        pipe = subprocess.PIPE
        return subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True)

    calls = []
    monkeypatch.setattr(compilers, "_start", start)
    group.add(NAMES, lambda *args: calls.append(args))
    group.wait()
    assert calls[-1] == ("compiling kernels", 4, 4)


def test_what_a_killed_compiler_was_at_is_told(monkeypatch, group):
    children = Children(monkeypatch, [60])
    group.add(NAMES[:1])
    children.started[0].kill()
    group.wait()
    assert "signal 9" in group.trouble(NAMES[0])
    assert "above" in group.trouble(NAMES[1])


def test_fewer_children_than_wanted_will_do(monkeypatch, group):
    children, start = Children(monkeypatch, [0, 0]), compilers._start

    def start_one(target, folder):
        if children.started:
            raise BlockingIOError(11, "no more")
        return start(target, folder)

    monkeypatch.setattr(compilers, "_start", start_one)
    group.add(NAMES)
    group.wait()
    assert group.idle
    assert len(children.started) == 1
    with pytest.raises(EdgeLLMError, match="no more"):
        group.add(["embed.f16"])


def test_an_interrupted_wait_ends_them(monkeypatch, group):
    children = Children(monkeypatch, [60, 60])
    group.add(NAMES)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        group.wait()
    monkeypatch.undo()
    assert [child.poll() for child in children.started] == [-signal.SIGKILL] * 2


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGINT)"], ids=["by itself", "interrupted"])
def test_they_end_with_who_started_them_and_say_nothing(tmp_path, end):
    program = f"""
import os, signal
from pathlib import Path
from edgellm.kernels.compilers import Compilers
from edgellm.simd import targets
group = Compilers(targets.choose(), Path({str(tmp_path)!r}))
group.add(["matmul.q4_0", "sample.draw"])
print(*(child.pid for child in group._children), flush=True)
{end}
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert len(run.stderr.splitlines()) <= 5, "our own traceback, at most"
    assert "compile" not in run.stderr
    pids = run.stdout.split()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
