"""The server's process: its socket, its signals, its end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from edgellm.errors import EdgeLLMError, UsageError
from edgellm.server.config import ServerConfig
from edgellm.server.run import bind, serve

CHAT = {"messages": [{"role": "user", "content": "x"}], "stream": True}


def test_a_port_in_use_is_said_in_a_sentence():
    with bind(ServerConfig(port=0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EdgeLLMError, match=rf"127.0.0.1:{port} is in use.*--port"):
            bind(ServerConfig(port=port))


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("203.0.113.7", 0), ("no such host", 0)])
def test_what_cannot_be_listened_on_is_wrong_usage(host, port):
    with pytest.raises(UsageError):
        bind(ServerConfig(host, port))


def test_ipv6_loopback():
    try:
        with bind(ServerConfig("::1", 0)) as listener:
            assert listener.family == socket.AF_INET6
    except UsageError:
        pytest.skip("this machine has no IPv6 loopback")


def test_a_model_that_fails_to_load_ends_the_server():
    before = sys.getswitchinterval()

    def load():
        raise EdgeLLMError("no such model")

    with pytest.raises(EdgeLLMError, match="no such model"):
        serve(ServerConfig(port=0), load)
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_the_server_soon_and_closes_its_streams(fake_server, number, code):
    server = fake_server()
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT) as answer:
        lines = answer.iter_lines()
        assert "assistant" in next(lines)
        began = time.monotonic()
        assert server.stop(number) == code
        assert time.monotonic() - began < 1.0  # half a second, and room for a busy machine
        rest = [line for line in lines if line]
    assert "shutting_down" in rest[-1]


def test_a_request_that_is_still_read_when_the_server_ends_is_a_503(fake_server):
    server = fake_server()
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as client:
        head = f"POST /tokenize HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n"
        client.sendall(head.encode() + b'{"content":')
        httpx.get(f"{server.url}/health")  # what was sent before this has arrived
        assert server.stop() == 0
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"shutting_down"' in answer
    assert "Traceback" not in server.rest()


def test_a_client_that_goes_away_frees_its_place(fake_server):
    server = fake_server()
    places = 8
    for _ in range(places + 1):
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=CHAT) as answer:
            assert answer.status_code == 200
            next(answer.iter_lines())
        time.sleep(0.05)


def test_a_second_server_on_the_port_fails_with_one_sentence(fake_server):
    port = fake_server().url.rsplit(":", 1)[1]
    second = subprocess.run(
        [sys.executable, "-m", "edgellm", "serve", "--port", port], capture_output=True, text=True, timeout=20
    )
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"127.0.0.1:{port} is in use" in second.stderr
