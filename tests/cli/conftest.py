"""Commands, run inside this process over a fake engine, or as processes of their own."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fake_engine import FakeEngine, Reply, fake_model

from edgellm.cli import main
from edgellm.config import DEFAULT_MODEL
from edgellm.errors import EdgeLLMError


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path) -> Callable[..., Ended]:
    """`cli("run", "Hi", stdin="")`: run a command; the store is an empty folder."""
    monkeypatch.setenv("EDGELLM_HOME", str(tmp_path / "home"))

    def run(*arguments: str, stdin: str | bytes = "") -> Ended:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["edgellm", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return run


class Loaded:
    """The fake engine that commands get, and the models they asked for."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.asked: list[tuple[Any, ...]] = []
        self.defaults: dict[str, Any] = {}

    def reply(self, *replies: Reply) -> None:
        self.engine = FakeEngine(replies)

    def load(self, *asked: Any) -> Any:
        self.asked.append(asked)
        return fake_model(self.engine, self.defaults)


@pytest.fixture
def fake(monkeypatch) -> Loaded:
    """Commands load a fake engine instead of a model."""
    import edgellm.cli.loading

    loaded = Loaded()
    monkeypatch.setattr(edgellm.cli.loading, "load_model", loaded.load)
    return loaded


@pytest.fixture(scope="session")
def default_model() -> str:
    """The default model's name; skips where it is not in the model store."""
    from edgellm.hub import resolve

    try:
        resolve(DEFAULT_MODEL, download=False)
    except EdgeLLMError as error:
        pytest.skip(str(error))
    return DEFAULT_MODEL
