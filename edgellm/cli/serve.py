"""`edgellm serve`: the HTTP server."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.cli.options import DEFAULT, Ctx, KVType, LowMemory, Model, Threads
from edgellm.errors import UsageError

if TYPE_CHECKING:
    from edgellm.server.model import ServedModel


def serve(
    model: Model = DEFAULT,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0: all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    api_key: Annotated[str | None, typer.Option(help="What clients must know.", show_default=False)] = None,
    threads: Threads = None,
    ctx: Ctx = None,
    low_memory: LowMemory = False,
    kv_type: KVType = "f16",
    max_sequences: Annotated[int, typer.Option(min=1, help="Answers that are written at once.")] = 8,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait beside those.")] = 64,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse fields that nobody knows.")] = False,
) -> None:
    """Serve a model over HTTP: OpenAI's API under /v1."""
    from edgellm.cli.loading import load_model
    from edgellm.cli.progress import ProgressShow
    from edgellm.server.config import ServerConfig
    from edgellm.server.guards import check_key, is_loopback
    from edgellm.server.run import serve as run_server

    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if not host:
        raise UsageError("--host is empty: give an address, or leave the option out", "host")
    if api_key is not None:
        check_key(api_key)
    if not is_loopback(host) and api_key is None:
        _say(f"warning: everybody who reaches {host} may use this server; --api-key keeps others out")

    def load() -> ServedModel:
        with ProgressShow() as show:
            return load_model(model, threads, ctx, max_sequences, queue, show, low_memory, kv_type)

    config = ServerConfig(host, port, api_key, strict)
    code = run_server(
        config,
        load,
        on_listen=lambda url: _say(f"listening on {url}, loading {model}"),
        on_ready=lambda url: _say(f"ready: {url}/v1"),
    )
    # Threads that still load or tokenize would hold an ordinary exit up.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
