"""The HTTP server inside another program: uvicorn in a thread of its own."""

from __future__ import annotations

import logging
import socket
import threading
from types import TracebackType
from typing import Final, Self

import uvicorn
from starlette.types import ASGIApp

from telemetry.errors import HttpAddressError
from telemetry.writer import Failures

BACKLOG: Final = 128
MAX_PORT: Final = 65535
START_TIMEOUT_S: Final = 10.0
GRACE_S: Final = 0.6
"""How long `EmbeddedHttp.stop` lets answers be finished."""
STOP_TIMEOUT_S: Final = 0.3
"""How long it then waits for the thread; what still hangs dies with the process."""


class EmbeddedHttp:
    """Serves an ASGI application on ``host`` and ``port`` (0: any free one) until `stop`.

    The address is taken at once, so that one that cannot be had raises `HttpAddressError` before
    anything is started. Signals stay with the program around it; nothing is printed. Should it end
    by itself, that is one of ``failures``, under the stage ``scrape``.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        failures: Failures | None = None,
    ) -> None:
        self._failures = failures or Failures()
        self._socket = listen(host, port)
        name = self._socket.getsockname()
        self._socket_name: tuple[str, int] = name[0], name[1]
        self._ready = threading.Event()
        config = uvicorn.Config(
            app,
            log_config=None,  # the program's own logging stands
            log_level=logging.WARNING,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=1,
            # A page and a scrape now and then need no fast ones, which take 3 MB.
            loop="asyncio",
            http="h11",
        )
        self._server = _Server(config, self._ready)
        self._thread = threading.Thread(target=self._serve, name="telemetry-http", daemon=True)

    @property
    def address(self) -> str:
        """Host and port as bound, ``127.0.0.1:9464`` or ``[::1]:9464``."""
        host, port = self._socket_name
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """Where it answers, without a path."""
        return f"http://{self.address}"

    def start(self) -> None:
        """Start serving; returns once it answers. Raises `HttpAddressError` if it never does."""
        self._thread.start()
        self._ready.wait(START_TIMEOUT_S)
        if not self._server.started:
            host, port = self._socket_name
            self.stop()
            raise HttpAddressError(host, port, "the server did not start")

    def stop(self) -> None:
        """Stop within a second and let go of the address; an answer in progress is finished first.

        May be called twice, and without `start`.
        """
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(GRACE_S)
            self._server.force_exit = True
            self._thread.join(STOP_TIMEOUT_S)
        self._socket.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        except Exception as error:  # noqa: BLE001 - the edge of the thread: training must not hear of it
            self._failures.note("scrape", "the HTTP server ended", error=error)
        finally:
            self._ready.set()


class _Server(uvicorn.Server):
    """Says when it answers, so that nobody has to ask again and again."""

    def __init__(self, config: uvicorn.Config, ready: threading.Event) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Listening at once, since on Linux two may *bind* one address."""
    if not 0 <= port <= MAX_PORT:  # the resolver would take it modulo 65536
        raise HttpAddressError(host, port, f"a port is a number from 0 to {MAX_PORT}")
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
        family, _, protocol, _, address = found[0]
        # With its protocol said: asyncio turns off Nagle's algorithm only where it reads TCP there,
        # and each answer on a kept connection would wait 40 ms for a delayed acknowledgement.
        listener = socket.socket(family, socket.SOCK_STREAM, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # UnicodeError: a name too long for the resolver
        raise HttpAddressError(host, port, _plain(error)) from error
    return listener


def _plain(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
