"""Where the wheels of a package lie, as the package index that pip is set to says.

The index's pages are the Simple Repository API's, in JSON or HTML
(https://packaging.python.org/en/latest/specifications/simple-repository-api/).
"""

from __future__ import annotations

import ast
import base64
import html.parser
import http.client
import json
import re
import string
import subprocess
import sys
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgellm.hub.transfer import Remote, fetch_page

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_DEFAULT = re.compile(r"\(default\s+(https?://[^\s)]+)\)")
_FALSE = ("", "0", "false", "no", "off")
_OWN_WAYS = ("proxy", "trusted-host", "client-cert")  # settings of how pip reaches an index


@dataclass(frozen=True)
class Wheel:
    """A wheel of an index: where it is, and what the index says of it."""

    remote: Remote
    sha256: str | None = None
    file_bytes: int | None = None


class PipSettings:
    """What pip is set to, by its files and its variables."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        """A setting as text, empty if there is none: variables before `[download]` before `[global]`."""
        keys = (f":env:.{name}", f"download.{name}", f"global.{name}")
        return next((self._values[key] for key in keys if key in self._values), "")

    @property
    def indexes(self) -> list[str]:
        """The addresses of the indexes, none where pip is not to ask any."""
        if self.get("no-index").lower() not in _FALSE:
            return []
        first = self.get("index-url") or default_index()
        found = [first, *self.get("extra-index-url").split()]
        return [url for url in found if url.startswith(("http://", "https://"))]


def pip_settings() -> PipSettings:
    """Ask pip how it is set."""
    lines = (line.partition("=") for line in _pip("config", "list").splitlines())
    return PipSettings({key: _unquoted(value) for key, _, value in lines})


def default_index() -> str:
    """The index that pip asks where nobody set another, from its own help; empty where that is not told."""
    match = _DEFAULT.search(_pip("download", "--help"))
    return match[1] if match else ""


def find_wheel(settings: PipSettings, package: str, version: str) -> Wheel | None:
    """The pure wheel of a version, from the first index that has one.

    None where pip has to find it: in a folder, where a password is asked for, or where only pip knows how to
    reach an index. If none has it, what the first one raised that could not be asked: urllib's OSError or
    HTTPException, or ValueError for what is no address.
    """
    if any(settings.get(name) for name in _OWN_WAYS):
        return None
    failure: Exception | None = None
    for index in settings.indexes:
        try:
            found = _wheel_of(index, package, version, settings.get("cert") or None)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code < 500:
                    continue
            failure = failure or error
            continue
        if found is not None:
            return found
    if failure is not None:
        raise failure
    return None


def _wheel_of(index: str, package: str, version: str, cafile: str | None) -> Wheel | None:
    """The wheel that the page of one index names."""
    page = _remote(f"{index.rstrip('/')}/{_normal(package)}/", package, cafile)
    content, kind, address = fetch_page(page, _ACCEPT)
    for name, link, sha256, size in _files(content, kind):
        if _is_wheel(name, package, version):
            # Browsers and pip quote what may not stand in an address, and so pages hold such links.
            url = urllib.parse.urljoin(address, urllib.parse.quote(link, safe=string.punctuation))
            same_host = urllib.parse.urlsplit(url).netloc == urllib.parse.urlsplit(page.url).netloc
            headers = page.headers if same_host else {}
            return Wheel(replace(page, url=url, headers=headers), sha256, size)
    return None


def _remote(url: str, package: str, cafile: str | None) -> Remote:
    """The page at `url`; a user and password in it become a header."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is None:
        return Remote(url, package, {}, cafile)
    secret = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    headers = {"Authorization": "Basic " + base64.b64encode(secret.encode()).decode()}
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    return Remote(urllib.parse.urlunsplit(bare), package, headers, cafile)


def _files(content: bytes, kind: str) -> Iterator[tuple[str, str, str | None, int | None]]:
    """Name, address, sha256 and size of every file on a page; what a broken page does not say is left out."""
    text = content.decode("utf-8", "replace")
    if not kind.endswith("json"):
        yield from _Anchors(text).files()
        return
    try:
        listed: Any = json.loads(text)["files"]
        found = [
            (file["filename"], file["url"], (file.get("hashes") or {}).get("sha256"), file.get("size"))
            for file in listed
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    for name, url, sha256, size in found:
        known = sha256 if isinstance(sha256, str) else None
        yield str(name), str(url), known, size if isinstance(size, int) else None


class _Anchors(html.parser.HTMLParser):
    """The links of a page: the text is the file's name, the fragment its hash."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get("href")
        if tag == "a" and link:
            self._links.append(link)

    def files(self) -> Iterator[tuple[str, str, str | None, int | None]]:
        for link in self._links:
            address, _, fragment = link.partition("#")
            sha256 = urllib.parse.parse_qs(fragment).get("sha256", [None])[0]
            try:
                path = urllib.parse.urlsplit(address).path
            except ValueError:  # no address
                continue
            yield urllib.parse.unquote(path.rpartition("/")[2]), address, sha256, None


def _is_wheel(name: str, package: str, version: str) -> bool:
    """Whether a file is a wheel of this version that fits every machine."""
    parts = name.removesuffix(".whl").split("-")
    right = len(parts) in (5, 6) and _normal(parts[0]) == _normal(package) and parts[1] == version
    return right and name.endswith("-none-any.whl")


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _unquoted(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _pip(*arguments: str) -> str:
    """What pip prints; nothing where this Python has none."""
    command = [sys.executable, "-P", "-m", "pip", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    ).stdout
