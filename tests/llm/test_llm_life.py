"""How models and answers end: closed, dropped, left, interrupted, forked."""

import _thread
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from spelled_model import GREEDY

import edgellm
from edgellm import SamplingParams


def test_a_closed_model_says_so(model_path):
    llm = edgellm.LLM(model_path, backend="reference", max_sequences=1)
    llm.close()
    llm.close()
    with pytest.raises(edgellm.EngineClosedError):
        llm.generate("the")


@pytest.mark.parametrize("on_engines_thread", [False, True])
def test_a_model_that_nobody_holds_gives_everything_back(model_path, on_engines_thread):
    llm = edgellm.LLM(model_path, backend="reference", max_sequences=1)
    llm.generate("the cat", GREEDY)
    thread, inbox = llm.engine._thread, llm.engine._inbox
    held = [weakref.ref(x) for x in (llm.engine, llm.engine.backend, llm._loaded.file._buffer)]
    llm.itself = llm  # so that it takes a garbage collection
    del llm
    if on_engines_thread:
        inbox.put(gc.collect)
    else:
        gc.collect()
    thread.join(5)
    assert not thread.is_alive()
    assert [x() for x in held] == [None] * 3


def test_a_stream_holds_its_model(model_path, llm):
    stream = edgellm.LLM(model_path, backend="reference", max_sequences=1).stream("the cat", GREEDY)
    gc.collect()
    assert "".join(c.text for c in stream) == llm.generate("the cat", GREEDY).text


LEFT_OPEN = """
import sys, edgellm
from edgellm import LLM, SamplingParams
llm = LLM(sys.argv[1], backend="reference", max_sequences=2)
llm.itself = llm
stream = llm.stream("the cat", SamplingParams(max_tokens=200, ignore_eos=True))
next(stream)
dropped = LLM(sys.argv[1], backend="reference", max_sequences=1)
del dropped
"""


def test_a_model_that_is_open_at_the_end_ends_silently(model_path):
    command = [sys.executable, "-c", LEFT_OPEN, str(model_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_leaving_a_stream_cancels_it(llm):
    with llm.stream("the cat", SamplingParams(max_tokens=200, ignore_eos=True)) as stream:
        next(stream)
    _wait_until_idle(llm)
    assert list(stream) == []


@pytest.mark.parametrize("way", ["generate", "stream"])
def test_ctrl_c_is_heard_at_once_and_cancels(llm, way):
    params = SamplingParams(max_tokens=240, ignore_eos=True, n=3)
    slow = llm.engine.backend.execute

    def execute(batch):
        time.sleep(0.05)
        return slow(batch)

    llm.engine.backend.execute = execute
    pressed, answered = [], threading.Event()

    def press():
        if not answered.wait(0.3):
            pressed.append(time.monotonic())
            _thread.interrupt_main()

    ask = {
        "generate": lambda: llm.generate("the", params),
        "stream": lambda: list(llm.stream("the", params)),
    }
    presser = threading.Thread(target=press)
    try:
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            ask[way]()
        assert time.monotonic() - pressed[0] < 0.3
        _wait_until_idle(llm)
    finally:
        answered.set()
        presser.join()
        del llm.engine.backend.execute


def _wait_until_idle(llm):
    end = time.monotonic() + 5
    while llm.stats().running or llm.stats().waiting:
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_is_told_to_load_its_own(llm):
    calls = [
        lambda: llm.generate("the cat", GREEDY),
        lambda: llm.stream("the cat", GREEDY),
        lambda: llm.logits([1, 2]),
    ]
    child = os.fork()
    if child == 0:
        told = 0
        for call in calls:
            try:
                call()
            except edgellm.EngineClosedError as error:
                told += "load it again" in str(error)
        llm.close()
        os._exit(told)
    assert os.waitstatus_to_exitcode(_waited(child)) == len(calls)
    assert llm.generate("the cat", GREEDY).finish_reason == "length"


def _waited(child):
    """The status of a child; one that hangs is killed."""
    for _ in range(100):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]
