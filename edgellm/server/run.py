"""The server's process: the socket, the signals, and the thread that loads the model."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from edgellm.errors import EdgeLLMError, UsageError
from edgellm.server.app import create_app
from edgellm.server.config import ServerConfig
from edgellm.server.model import ServedModel
from edgellm.server.slot import ModelSlot

_LOG = logging.getLogger("edgellm.server")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 0.3  # for streams to say that they end
# The engine's thread needs the interpreter's lock once a step; Python's default would let a busy
# request hold it for 5 ms, several tokens' worth for a small model.
SWITCH_SECONDS = 0.0005


def bind(config: ServerConfig) -> socket.socket:
    """A listening socket. EdgeLLMError if the port is taken, UsageError if the host is not ours."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _bind_error(error, config) from None
    listener.setblocking(False)
    return listener


def _bind_error(error: Exception, config: ServerConfig) -> EdgeLLMError:
    where = f"{config.host}:{config.port}"
    if isinstance(error, OverflowError):
        return UsageError(f"port is {config.port}: it must be from 0 to 65535", "port")
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.EADDRINUSE:
        return EdgeLLMError(f"{where} is in use by another program: stop that, or choose another --port")
    if code in (errno.EACCES, errno.EPERM):
        return EdgeLLMError(f"{where} may not be opened by this user: choose a --port from 1024 on")
    return UsageError(
        f"{where} cannot be listened on ({error}): give an address of this machine as --host", "host"
    )


def serve(
    config: ServerConfig,
    load: Callable[[], ServedModel],
    on_listen: Callable[[str], None] = lambda url: None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve until a signal comes; `load` runs in a thread, with the socket already open.

    Gives the exit code: 0 after SIGTERM, 130 after Ctrl-C. Raises what `bind` and `load` raise. What `load`
    still does when the signal comes goes on: the caller should end the process.
    """
    listener = bind(config)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    slot = ModelSlot()
    server = _Server(config, slot)
    loading = _Loading(load, slot, server, lambda: on_ready(url))
    on_listen(url)
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        loading.start()
        asyncio.run(server.serve([listener]))
    finally:
        sys.setswitchinterval(before)
        slot.close()
    if loading.error is not None:
        raise loading.error
    return 130 if server.signal == signal.SIGINT else 0


class _Loading(threading.Thread):
    """Loads the model into the slot; a failure ends the server."""

    def __init__(
        self, load: Callable[[], ServedModel], slot: ModelSlot, server: _Server, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(name="edgellm-loading", daemon=True)
        self.error: Exception | None = None
        self._load, self._slot, self._server, self._on_ready = load, slot, server, on_ready

    def run(self) -> None:
        try:
            self._slot.fill(self._load())
            self._on_ready()
        except Exception as error:
            self.error = error
            self._server.should_exit = True


class _Server(uvicorn.Server):
    """Uvicorn, ended by the first signal: the engine closes at once, which ends every stream."""

    def __init__(self, config: ServerConfig, slot: ModelSlot) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(slot, config),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=30,
            )
        )
        # Given here because Config wants whole seconds.
        self.config.timeout_graceful_shutdown = GRACE_SECONDS  # type: ignore[assignment]
        self.signal: int | None = None
        self._slot = slot

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising the signal again at the end: the exit code is ours to choose."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit  # the second signal
        self.should_exit = True
        self.signal = sig
        # Not here: closing waits for the engine's thread, and streams need this one to end.
        threading.Thread(target=self._slot.close, name="edgellm-closing", daemon=True).start()
