#!/usr/bin/env python3
"""What the server adds to decoding: tokens per second of the bare backend, of whole answers, and of streams.

    python bench/serving.py MODEL --threads 2 --clients 1,8

Rounds go through all cases in turn; figures are medians, of all clients together. The client only counts
events: a client that does more on the same cores takes their time.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time

import arguments
from engines import Ours, Setup

from edgellm.config import MAX_THREADS

PROMPT = list(range(8, 16))
HOST = "127.0.0.1"
REQUEST = (
    "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{}"
)


def start(model: str, threads: int) -> tuple[subprocess.Popen[str], int]:
    """A server that is ready, and its port."""
    command = [sys.executable, "-m", "edgellm", "serve", model, "--port", "0", "--threads", str(threads)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    port, said = 0, []
    for line in server.stdout:
        said.append(line)
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        port = int(found[1]) if found else port
        if "ready" in line:
            return server, port
    raise SystemExit("the server did not start:\n" + "".join(said))


def ask(port: int, clients: int, tokens: int, stream: bool) -> float:
    """Tokens per second of so many clients together, from the first request to the last byte."""
    body = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": stream}
    sockets, counts = selectors.DefaultSelector(), dict.fromkeys(range(clients), 0)
    began = time.perf_counter()
    for client in range(clients):
        text = json.dumps({**body, "prompt": [client, *PROMPT]})
        connection = socket.create_connection((HOST, port))
        connection.sendall(REQUEST.format(len(text), text).encode())
        sockets.register(connection, selectors.EVENT_READ, client)
    while sockets.get_map():
        for key, _ in sockets.select():
            data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
            counts[key.data] += data.count(b"data: {") if stream else data.count(b'"completion_tokens":')
            if not data:
                sockets.unregister(key.fileobj)
                key.fileobj.close()  # type: ignore[union-attr]
    seconds = time.perf_counter() - began
    if not all(counts.values()):
        raise SystemExit(f"{list(counts.values()).count(0)} of {clients} clients had no answer")
    return clients * tokens / seconds


def main() -> None:
    """Parse the command line and run."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--threads", type=arguments.number(most=MAX_THREADS), default=os.cpu_count() or 1)
    parser.add_argument("--clients", type=arguments.numbers(), default=[1, 8])
    parser.add_argument("--tokens", type=arguments.number(), default=100)
    parser.add_argument("--rounds", type=arguments.number(), default=5)
    options = parser.parse_args()
    path = arguments.path_of(options.model)
    bare = Ours(Setup(path, options.threads, 128 + options.tokens, max(options.clients)))
    server, port = start(path, options.threads)
    found: dict[tuple[int, str], list[float]] = {}
    try:
        ask(port, 1, 8, True)
        for _ in range(options.rounds):
            for n in options.clients:
                seconds = bare.decode(list(range(options.tokens)), n)
                found.setdefault((n, "backend"), []).append(n * options.tokens / seconds)
                for stream in (False, True):
                    rate = ask(port, n, options.tokens, stream)
                    found.setdefault((n, "streamed" if stream else "whole"), []).append(rate)
    finally:
        server.terminate()
        server.wait()
    for (n, what), rates in found.items():
        spread = f"({min(rates):.0f}-{max(rates):.0f})"
        print(f"{n} clients, {what:8s}: {statistics.median(rates):6.0f} tok/s {spread}")


if __name__ == "__main__":
    main()
