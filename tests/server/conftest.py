"""Server processes: over a fake engine, and over the default model."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgellm.config import DEFAULT_MODEL
from edgellm.errors import EdgeLLMError

TESTS = Path(__file__).resolve().parents[1]
FAKE = """
import sys
from fake_engine import FakeEngine, Reply, fake_model
from edgellm.server.config import ServerConfig
from edgellm.server.run import serve

def load():
    return fake_model(FakeEngine([Reply(tuple("abcdef"), hold=True)] * 9))

def show(url):
    print("ready:", url, file=sys.stderr, flush=True)

sys.exit(serve(ServerConfig(port=0), load, on_ready=show))
"""


class Process:
    """A server in a process of its own. `url` is where it listens."""

    def __init__(self, arguments: list[str]) -> None:
        paths = [str(TESTS), str(TESTS.parent)]
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        self.log: list[str] = []
        self.url = self._wait_until_ready()

    def _wait_until_ready(self) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.match(r"ready: (http://[^/\s]+)", line):
                return found[1]
        raise AssertionError(f"the server ended with {self.process.wait()}: {''.join(self.log)}")

    def stop(self, number: int = signal.SIGTERM, within_s: float = 5.0) -> int:
        """Send a signal, and give the exit code."""
        self.process.send_signal(number)
        return self.process.wait(within_s)

    def rest(self) -> str:
        """What it wrote after it was ready; it must have ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def fake_server() -> Iterator[Callable[[], Process]]:
    """`fake_server()`: a new server over a fake engine whose answers never end."""
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(["-c", FAKE]))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture(scope="session")
def real_server() -> Iterator[Process]:
    """A server with the default model; skips where that is not in the model store."""
    from edgellm.hub import resolve

    try:
        resolve(DEFAULT_MODEL, download=False)
    except EdgeLLMError as error:
        pytest.skip(str(error))
    process = Process(["-m", "edgellm", "serve", "--port", "0", "--ctx", "512", "--max-sequences", "4"])
    yield process
    process.close()
