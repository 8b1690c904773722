"""One file over HTTP, continued where an earlier attempt stopped: in this process, or in one that was killed.

What has come is kept beside the file (`partial.py`). It goes on only if the server says that the file is
still the same one (`If-Range`, `Content-Range`), else it starts afresh; the whole is checked before it gets
its name. Ranges and conditions are RFC 9110's, sections 13.1.5 and 14.
"""

from __future__ import annotations

import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgellm.errors import DownloadError
from edgellm.hub.checks import CHUNK, check, mebibytes, require_room, write
from edgellm.hub.partial import Partial
from edgellm.hub.source import Expected, Progress

WAITS_S = (1.0, 2.0, 4.0, 8.0)  # before the attempts that follow the first
TIMEOUT_S = 30.0
_TELL_S = 0.1  # between reports: chunks may be small and many
_WORTH = 8 << 20  # bytes after which a broken connection counts as the first one again
_AGAIN = (408, 425, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


@dataclass(frozen=True)
class Remote:
    """A file to fetch. `headers` go to the host of `url` only, and to no other that it redirects to."""

    url: str
    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    cafile: str | None = None


def download(remote: Remote, target: Path, expected: Expected, progress: Progress) -> None:
    """Fetch a file whole, checked, under its name. One process at a time may do so.

    Raises DownloadError when the server refuses, breaks off again and again, or sends another file; then
    what came is kept where it can be continued. Raises OSError for what the disk refuses.
    """
    partial = Partial(target, expected)
    _complete(remote, partial, progress)
    try:
        check(partial.path, expected, progress, f"checking {remote.name}")
    except DownloadError:
        partial.remove()
        if not partial.left_over:
            raise
        # What an earlier attempt left may be at fault: a lost power supply leaves holes.
        return download(remote, target, expected, progress)
    os.replace(partial.path, target)
    partial.remove()
    return None


def fetch_page(remote: Remote, accept: str) -> tuple[bytes, str, str]:
    """A small page: its bytes, content type, and the address that it came from. Raises as `_open`."""
    with _open(remote, {"Accept": accept}) as response:
        return response.read(1 << 26), response.headers.get_content_type(), response.geturl()


class _BrokenOffError(Exception):
    """An attempt that is worth repeating. The message says why it failed."""


def _complete(remote: Remote, partial: Partial, progress: Progress) -> None:
    """Attempt until all bytes are here, waiting longer and longer between attempts that bring little."""
    failures, most = 0, partial.size
    while not partial.whole:
        try:
            _attempt(remote, partial, progress)
            return
        except _BrokenOffError as error:
            # What a fresh start brings again is no progress.
            failures = 1 if partial.size - most >= _WORTH else failures + 1
            most = max(most, partial.size)
            if failures > len(WAITS_S):
                raise DownloadError(_gave_up(partial, str(error), failures)) from error
            time.sleep(WAITS_S[failures - 1])


def _gave_up(partial: Partial, reason: str, failures: int) -> str:
    total = partial.known.total
    of = f" of {mebibytes(total)}" if total else ""
    return f"the download broke off {failures} times, at {mebibytes(partial.size)}{of} ({reason})"


def _attempt(remote: Remote, partial: Partial, progress: Progress) -> None:
    """Ask for what is missing, and append it. Raises _BrokenOffError where it ends too early."""
    try:
        response = _open(remote, _condition(partial))
    except urllib.error.HTTPError as error:
        error.close()
        _refused(error, partial)
        return
    except http.client.InvalidURL as error:
        raise DownloadError(f"{remote.url} is no address, or leads to one that is none ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_reason(error)) from error
    with response:
        start = _start(response, partial)
        _append(response, remote, partial, start, progress)
    total = partial.known.total
    if total is not None and partial.size < total:
        raise _BrokenOffError("the connection was closed")
    if total is not None and partial.size > total:
        partial.restart()
        raise _BrokenOffError(f"more than the {total} bytes that were announced came")


def _condition(partial: Partial) -> dict[str, str]:
    if not partial.known.identified:
        partial.restart()
    if partial.size == 0:
        return {}
    headers = {"Range": f"bytes={partial.size}-"}
    if partial.known.validator is not None:
        headers["If-Range"] = partial.known.validator
    return headers


def _refused(error: urllib.error.HTTPError, partial: Partial) -> None:
    """Raise for an error status: _BrokenOffError where another attempt may help, else DownloadError."""
    if error.code == 416 and partial.size > 0:
        partial.restart()
        raise _BrokenOffError("the file has become shorter") from error
    if error.code in _AGAIN:
        raise _BrokenOffError(f"the server answers {error.code} {error.reason}") from error
    raise DownloadError(f"the server answers {error.code} {error.reason}") from error


def _start(response: http.client.HTTPResponse, partial: Partial) -> int:
    """The position of the answer's first byte, after making the partial file fit it."""
    validator = _validator(response)
    if response.status == 206:
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        start, total = (int(match[1]), int(match[2])) if match else (-1, -1)
        same = None in (validator, partial.known.validator) or validator == partial.known.validator
        if same and start == partial.size and partial.known.total in (None, total):
            require_room(partial.path.parent, total - start)
            partial.learn(total=total)
            return start
        partial.restart()
        raise _BrokenOffError("the file has changed on the server")
    _begin(response, partial, validator)
    return 0


def _begin(response: http.client.HTTPResponse, partial: Partial, validator: str | None) -> None:
    """Start afresh, and note what a whole file's answer says.

    Raises DownloadError where it is another file's size: a page to log in, say; what is here is kept.
    """
    total = _length(response)
    if total is not None and partial.expected.file_bytes not in (None, total):
        raise DownloadError(
            f"the file should have {partial.expected.file_bytes} bytes, but the server's has {total}"
        )
    partial.restart()
    if total is not None:
        require_room(partial.path.parent, total)
    partial.learn(validator=validator, total=total, sha256=partial.expected.sha256)


def _length(response: http.client.HTTPResponse) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What identifies the file's bytes; a weak ETag does not, and then the date may."""
    etag = response.headers.get("ETag")
    if etag and etag.startswith('"'):
        return str(etag)
    return response.headers.get("Last-Modified")


def _append(
    response: http.client.HTTPResponse, remote: Remote, partial: Partial, start: int, progress: Progress
) -> None:
    total = partial.known.total
    description = f"downloading {remote.name}"
    if start > 0:
        description += f", from {mebibytes(start)} on"
    done = start
    # Unbuffered, so that what has come is in the file when the process is killed.
    with partial.path.open("ab", buffering=0) as file:
        progress(description, done, total)
        told = time.monotonic()
        while chunk := _read(response):
            write(file, chunk, partial.path.parent, (total or done + CHUNK) - done)
            done += len(chunk)
            if done == total or time.monotonic() - told >= _TELL_S:
                progress(description, done, total)
                told = time.monotonic()


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError):
        return str(getattr(error.reason, "strerror", None) or error.reason)
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _open(remote: Remote, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    """Ask for a file. Raises what urllib does, and InvalidURL for everything that is no address."""
    https = urllib.request.HTTPSHandler(context=_trust(remote.cafile))
    opener = urllib.request.build_opener(https, _Redirects(remote))
    try:
        request = urllib.request.Request(remote.url, headers={"Accept-Encoding": "identity", **headers})
        for name, value in remote.headers.items():
            request.add_unredirected_header(name, value)
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_S)
    except ValueError as error:
        if isinstance(error, OSError):  # a certificate that is not believed is both
            raise
        raise http.client.InvalidURL(str(error)) from error
    return response


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Gives a host its headers again where it redirects to itself."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def http_error_302(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        """Go where an answer leads; urllib leaves that answer open where it leads to no address."""
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _host(newurl) == _host(self._remote.url):
            for name, value in self._remote.headers.items():
                request.add_unredirected_header(name, value)
        return request


def _host(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, name and port: whoever differs in one of them may be somebody else."""
    parts = urllib.parse.urlsplit(url)
    ports = {"http": 80, "https": 443}
    return parts.scheme, parts.hostname, parts.port or ports.get(parts.scheme)


def _trust(cafile: str | None) -> ssl.SSLContext:
    """Believe the certificates named, else the operating system's, which not every Python finds by itself."""
    if cafile is not None:
        return ssl.create_default_context(cafile=cafile)
    try:
        import truststore
    except ImportError:
        return ssl.create_default_context()
    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
