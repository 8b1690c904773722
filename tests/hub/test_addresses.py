"""Where an address leads: what goes along, and what is said of one that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_servers import Wire, serving

from edgellm.errors import DownloadError
from edgellm.hub.source import Expected, silent
from edgellm.hub.transfer import Remote, download

PASSWORD = {"Authorization": "Basic x"}


class Host:
    """A server that redirects from /old, and has a file everywhere else; it notes what it is asked."""

    def __init__(self, leads_to: str = "/new") -> None:
        self._wire, self._leads_to = Wire(), leads_to
        self.asked: list[tuple[str, str | None]] = []

    def answer(self, request):
        self.asked.append((request.path, request.headers.get("Authorization")))
        if request.path == "/old":
            self._wire.answer(request, 307, {"Location": self._leads_to}, b"")
        else:
            self._wire.send(request, b"file", {"ETag": '"one"'})


def fetch(url: str, folder: Path) -> None:
    download(Remote(url, "file", PASSWORD), folder / "a", Expected(), silent)
    assert (folder / "a").read_bytes() == b"file"


def test_a_password_goes_on_where_its_host_redirects_to_itself(tmp_path):
    host = Host()
    with serving(host.answer) as url:
        fetch(f"{url}/old", tmp_path)
    assert host.asked == [("/old", "Basic x"), ("/new", "Basic x")]


def test_a_password_stays_with_its_host(tmp_path):
    other = Host()
    with serving(other.answer) as elsewhere:
        # Another server, by two names.
        for leads_to in (elsewhere.replace("127.0.0.1", "localhost"), elsewhere):
            host = Host(f"{leads_to}/file")
            with serving(host.answer) as url:
                fetch(f"{url}/old", tmp_path)
            assert host.asked == [("/old", "Basic x")]
        fetch(f"{elsewhere}/file", tmp_path)
    assert other.asked == [("/file", None), ("/file", None), ("/file", "Basic x")]


@pytest.mark.parametrize(
    "url", ["http://[bad/f", "http://127.0.0.1:1/s\u00ef", "http://.example.com/f", "http://a b/"]
)
def test_what_is_no_address_is_named_at_once(tmp_path, url):
    with pytest.raises(DownloadError) as caught:
        download(Remote(url, "file"), tmp_path / "a", Expected(), silent)
    assert str(caught.value).startswith(f"{url} is no address, or leads to one that is none (")


def test_what_leads_to_no_address_is_named_at_once(tmp_path):
    with serving(Host("http://[bad/f").answer) as url, pytest.raises(DownloadError, match=f"{url}/old is no"):
        download(Remote(f"{url}/old", "file"), tmp_path / "a", Expected(), silent)
