"""The service as a process: uvicorn in the foreground until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from telemetry.garbage import leave_what_is_there
from telemetry.service.request_log import JsonLines
from telemetry.service.server import listen

GRACE_S: Final = 25
"""How long requests in progress may take to end after SIGTERM; Kubernetes kills after 30 s."""
KEEP_ALIVE_S: Final = 30
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_CONNECTIONS: Final = 1000
GC_OBJECTS: Final = 10_000
"""So many new ones until the collector looks whether any hold each other."""


def serve(
    app: ASGIApp, host: str, port: int, *, said: Callable[[str], None] = lambda _: None
) -> None:
    """Serve until SIGINT or SIGTERM; requests in progress are finished, and what they write.

    ``said`` is called with the address (``127.0.0.1:9464``) once it is taken. Raises
    `HttpAddressError` if it cannot be.
    """
    listener = listen(host, port)
    bound = listener.getsockname()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_ALIVE_S,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        limit_concurrency=MAX_CONNECTIONS,
        http="h11",
    )
    leave_what_is_there()
    # Of a request next to nothing is left when it is answered, and nothing in a ring: to look after
    # every 700 objects took a twentieth of a service's time.
    gc.set_threshold(GC_OBJECTS, *gc.get_threshold()[1:])
    said(f"[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"{bound[0]}:{bound[1]}")
    with listener:
        asyncio.run(_run(uvicorn.Server(config), listener))


async def _run(server: uvicorn.Server, listener: object) -> None:
    def stop() -> None:
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    # Not `serve`: it takes the signals itself and raises them again afterwards, which would turn an
    # orderly end into a death by signal.
    await server._serve(sockets=[listener])  # type: ignore[list-item]


def log_as_json(level: int = logging.INFO) -> None:
    """Log to stderr, a JSON object a line."""
    # In no line, and asked for at each (Python's logging howto, "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
