"""Who may ask."""

from __future__ import annotations

import pytest
from asgi_client import Client

from edgellm.errors import UsageError
from edgellm.server.config import ServerConfig
from edgellm.server.guards import check_key, is_loopback

KEYED = ServerConfig(api_key="secret-1")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "app.localhost"])
def test_loopback_names(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "192.168.1.2", "example.com", "localhost.example.com", "::"])
def test_other_names(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("key", ["", " key ", "two words", "schlüssel", "\udcff", "tab\t", "nul\0"])
def test_a_key_that_no_client_can_send_is_refused(key):
    with pytest.raises(UsageError, match="ASCII"):
        check_key(key)


def test_without_the_key_only_health_answers():
    client = Client(config=KEYED)
    assert client.get("/health").status_code == 200
    for path in ("/v1/models", "/v1/nothing"):
        answer = client.get(path)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_key_opens(scheme):
    headers = {"authorization": f"{scheme} secret".encode()}
    client = Client(config=ServerConfig(api_key="secret"))
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.get("/v1/models", headers={"x-api-key": "secret"}).status_code == 200


@pytest.mark.parametrize("given", ["Bearer wrong", "Bearer", "Basic secret", "Bearer secret2", "secret"])
def test_other_keys_do_not(given):
    client = Client(config=ServerConfig(api_key="secret"))
    assert client.get("/v1/models", headers={"authorization": given}).status_code == 401


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:8080", "[::1]:8080"])
def test_a_loopback_server_answers_for_its_own_names(host):
    assert Client().get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "192.168.0.1", "[bad"])
def test_a_loopback_server_refuses_other_hosts(host):
    assert Client().get("/health", headers={"host": host}).status_code == 403


def test_a_public_server_answers_for_any_host():
    client = Client(config=ServerConfig(host="0.0.0.0"))
    assert client.get("/health", headers={"host": "box.lan:8080"}).status_code == 200


def test_pages_of_this_machine_may_read():
    origin = "http://localhost:3000"
    answer = Client().get("/v1/models", headers={"origin": origin})
    assert answer.headers["access-control-allow-origin"] == origin
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost.evil.example", "http://[bad"]
)
def test_other_pages_are_refused_before_anything_runs(origin):
    client = Client()
    answer = client.post("/v1/chat/completions", {"messages": []}, headers={"origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert client.engine.requests == []


def test_a_public_server_lets_its_own_page_in():
    client = Client(config=ServerConfig(host="0.0.0.0"))
    headers = {"host": "box.lan:8080", "origin": "http://box.lan:8080"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_preflight_needs_no_key_and_names_the_headers():
    headers = {
        "origin": "http://127.0.0.1:5000",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = Client(config=KEYED).request("OPTIONS", "/v1/chat/completions", headers=headers)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
    assert answer.headers["access-control-allow-origin"] == headers["origin"]
    assert answer.headers["vary"] == "Origin"
