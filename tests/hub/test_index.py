"""Where an index says that a wheel lies."""

from __future__ import annotations

import base64
import hashlib
import http.client
import urllib.error

import pytest
from fake_servers import serving

from edgellm.hub.index import PipSettings, default_index, find_wheel, pip_settings

NAME = "tiny_model-1.0-py3-none-any.whl"
DATA = b"wheel"


def wheel_of(index, version="1.0"):
    return find_wheel(PipSettings({"global.index-url": index.url}), "Tiny.Model", version)


@pytest.mark.parametrize("json", [True, False])
@pytest.mark.parametrize("hashes", [True, False])
def test_the_wheel_is_found_in_json_and_html(fake_index, json, hashes):
    fake_index.json, fake_index.hashes = json, hashes
    fake_index.files = {"tiny_model-0.9-py3-none-any.whl": b"", "tiny_model-1.0.tar.gz": b"", NAME: DATA}
    found = wheel_of(fake_index)
    assert found is not None
    assert found.remote.url == fake_index.url.replace("/simple", f"/files/{NAME}")
    assert found.sha256 == (hashlib.sha256(DATA).hexdigest() if hashes else None)


@pytest.mark.parametrize(
    "name", ["tiny_model-1.0.1-py3-none-any.whl", "tiny_model-1.0-cp311-cp311-linux_x86_64.whl", "x.zip"]
)
def test_another_file_is_not_taken(fake_index, name):
    fake_index.files = {name: DATA}
    assert wheel_of(fake_index) is None


def test_a_page_that_is_broken_has_no_files(fake_index, monkeypatch):
    hashes = b'{"files": [{"filename": "a", "url": "b", "hashes": ["a"]}]}'
    for page in (b"[]", b"{", b'{"files": 3}', b'{"files": [{}]}', hashes):
        monkeypatch.setattr(fake_index, "_page", lambda page=page: page)
        assert wheel_of(fake_index) is None


def test_a_password_in_the_address_is_sent_as_a_header(fake_index):
    fake_index.files = {NAME: DATA}
    fake_index.secret = "Basic " + base64.b64encode(b"me:p@ss").decode()
    assert wheel_of(fake_index) is None, "whoever may not look is left to pip"
    fake_index.url = fake_index.url.replace("://", "://me:p%40ss@")
    found = wheel_of(fake_index)
    assert found is not None
    assert "@" not in found.remote.url
    assert found.remote.headers == {"Authorization": fake_index.secret}


def test_a_password_stays_with_the_index_that_has_it(fake_index):
    fake_index.files = {NAME: DATA}
    to = {"Location": f"{fake_index.url}/tiny-model/"}
    with serving(lambda request: fake_index.wire.answer(request, 302, to, b"")) as moved:
        values = {"global.index-url": moved.replace("://", "://me:secret@")}
        found = find_wheel(PipSettings(values), "tiny-model", "1.0")
    assert found is not None
    assert found.remote.url.startswith(fake_index.url.removesuffix("simple"))
    assert found.remote.headers == {}


def test_the_next_index_is_asked(fake_index):
    fake_index.files = {NAME: DATA}
    empty = fake_index.url.replace("/simple", "/none")
    values = {"global.index-url": empty, "global.extra-index-url": f"file:///none\n{fake_index.url}"}
    assert find_wheel(PipSettings(values), "tiny-model", "1.0") is not None


def test_an_index_that_cannot_be_reached_raises():
    with pytest.raises(urllib.error.URLError):
        find_wheel(PipSettings({"global.index-url": "http://127.0.0.1:1/simple"}), "tiny-model", "1.0")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/simple", "http://[bad/simple", "http://.x.test/simple"])
def test_an_index_that_cannot_be_asked_does_not_end_the_search(fake_index, url):
    values = {"global.index-url": url, "global.extra-index-url": fake_index.url}
    with pytest.raises((OSError, ValueError, http.client.HTTPException)):
        find_wheel(PipSettings(values), "tiny-model", "1.0")
    fake_index.files = {NAME: DATA}
    assert find_wheel(PipSettings(values), "tiny-model", "1.0") is not None


def test_an_index_that_is_ill_does_not_end_the_search(fake_index):
    fake_index.files = {NAME: DATA}
    with serving(lambda request: fake_index.wire.answer(request, 503, {}, b"")) as ill:
        values = {"global.index-url": ill, "global.extra-index-url": fake_index.url}
        assert find_wheel(PipSettings(values), "tiny-model", "1.0") is not None
        with pytest.raises(urllib.error.HTTPError, match="503"):
            find_wheel(PipSettings({"global.index-url": ill}), "tiny-model", "1.0")


@pytest.mark.parametrize("name", ["proxy", "trusted-host", "client-cert"])
def test_ways_that_only_pip_knows_are_left_to_pip(fake_index, name):
    fake_index.files = {NAME: DATA}
    assert find_wheel(PipSettings({"global.index-url": fake_index.url, name: ""}), "tiny-model", "1.0")
    values = {"global.index-url": fake_index.url, f":env:.{name}": "a"}
    assert find_wheel(PipSettings(values), "tiny-model", "1.0") is None
    assert fake_index.pages == 1


def test_links_are_quoted_and_what_is_no_address_is_passed_over(fake_index, monkeypatch):
    links = f'<a href="http://[bad/{NAME}">a</a> <a href="/f\u00ef les/{NAME}">b</a>'
    fake_index.json = False
    monkeypatch.setattr(fake_index, "_page", lambda: links.encode())
    found = wheel_of(fake_index)
    assert found is not None
    assert found.remote.url == fake_index.url.replace("/simple", f"/f%C3%AF%20les/{NAME}")


def test_variables_come_before_files_and_commands_before_everything():
    values = {"global.cert": "a", "global.index-url": "b", "download.index-url": "c"}
    settings = PipSettings(values)
    assert (settings.get("cert"), settings.get("index-url"), settings.get("proxy")) == ("a", "c", "")
    assert PipSettings({**values, ":env:.index-url": "d"}).get("index-url") == "d"


def test_pip_is_asked_how_it_is_set(fake_index, monkeypatch):
    assert pip_settings().indexes == [fake_index.url]
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://a.test/simple file:///b")
    assert pip_settings().indexes == [fake_index.url, "https://a.test/simple"]
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pip_settings().indexes == []


def test_pip_tells_which_index_it_asks_by_default():
    assert default_index().startswith("https://")
