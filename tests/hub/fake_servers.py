"""Servers on 127.0.0.1 in the place of the world's: a package index and a model hub, with all their moods."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Wire:
    """A server's way with files: whether it knows ranges, where it hangs up, how slow it is."""

    def __init__(self) -> None:
        self.ranges = True
        self.conditions = True  # whether it knows If-Range
        self.cuts: list[int] = []  # after so many bytes the next answers break off; then they are whole
        self.pause_s = 0.0  # before each 16 KiB
        self.asked: list[str | None] = []  # the Range of each GET of a file

    def send(self, request: http.server.BaseHTTPRequestHandler, data: bytes, headers: dict[str, str]) -> None:
        """Answer with a file, or the range of it that is asked for."""
        wanted = request.headers.get("Range")
        if request.command == "GET":
            self.asked.append(wanted)
        condition = request.headers.get("If-Range")
        if condition is not None and self.conditions and condition != headers.get("ETag"):
            wanted = None
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if begin > 0 and begin >= len(data):
            self.answer(request, 416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        elif begin > 0:
            content_range = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self.answer(request, 206, {**headers, "Content-Range": content_range}, data[begin:])
        else:
            self.answer(request, 200, headers, data)

    def answer(
        self, request: http.server.BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes
    ) -> None:
        request.send_response(status)
        request.send_header("Connection", "close")  # the client's pool outlives this server
        request.close_connection = True
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        sent = body[: self.cuts.pop(0)] if self.cuts and status in (200, 206) and "ETag" in headers else body
        try:
            for start in range(0, len(sent), 1 << 14):
                time.sleep(self.pause_s)
                request.wfile.write(sent[start : start + (1 << 14)])
        except OSError:
            pass  # the client was killed


@contextlib.contextmanager
def serving(answer: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on 127.0.0.1; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            answer(self)

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


class FakeIndex:
    """A package index: pages of files, in JSON or HTML."""

    def __init__(self) -> None:
        self.url = ""
        self.wire = Wire()
        self.files: dict[str, bytes] = {}
        self.json, self.hashes = True, True
        self.secret: str | None = None  # what Authorization has to be
        self.pages = 0

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        name = path.rpartition("/")[2]
        if self.secret is not None and request.headers.get("Authorization") != self.secret:
            self.wire.answer(request, 401, {}, b"")
        elif path == "/simple/tiny-model/":
            self.pages += 1
            kind = "application/vnd.pypi.simple.v1+json" if self.json else "text/html"
            self.wire.answer(request, 200, {"Content-Type": kind}, self._page())
        elif name in self.files:
            data = self.files[name]
            self.wire.send(request, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()[:9]}"'})
        else:
            self.wire.answer(request, 404, {}, b"")

    def _page(self) -> bytes:
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        if self.json:
            files = [
                {"filename": n, "url": f"../../files/{n}", "hashes": {"sha256": s} if self.hashes else {}}
                for n, s in sums.items()
            ]
            return json.dumps({"files": files}).encode()
        links = (
            f'<a href="../../files/{n}{f"#sha256={s}" if self.hashes else ""}">{n}</a>'
            for n, s in sums.items()
        )
        return f"<html><body>{' '.join(links)}</body></html>".encode()


class FakeHub:
    """The few endpoints of the model hub that fetching a file needs."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.url = ""
        self.repos: dict[str, dict[str, bytes]] = {}
        self.wrong_bytes: bytes | None = None  # sent instead of any file's, when set
        self.error: tuple[int, str] | None = None  # status and X-Error-Code of every answer, when set
        self.gets: list[str] = []

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.command == "GET":
            self.gets.append(request.path)
        path = urlsplit(request.path).path
        info = re.fullmatch(r"/api/models/([^/]+/[^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)
        matched = info or file
        repo = self.repos.get(matched.group(1)) if matched else None
        if self.error is not None:
            self.wire.answer(request, self.error[0], {"X-Error-Code": self.error[1]}, b"{}")
        elif repo is None:
            self.wire.answer(request, 404, {"X-Error-Code": "RepoNotFound"}, b"{}")
        elif info:
            body = {"id": info.group(1), "siblings": [{"rfilename": name} for name in repo]}
            self.wire.answer(request, 200, {"Content-Type": "application/json"}, json.dumps(body).encode())
        elif file and file.group(2) in repo:
            self._send_file(request, repo[file.group(2)])
        else:
            self.wire.answer(request, 404, {"X-Error-Code": "EntryNotFound"}, b"{}")

    def _send_file(self, request: http.server.BaseHTTPRequestHandler, data: bytes) -> None:
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        self.wire.send(request, self.wrong_bytes or data, headers)
