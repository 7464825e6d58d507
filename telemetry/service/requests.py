"""Counts requests and how long they took, by what was asked and never by its raw address."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.durations import Distribution, Durations

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"
"""Any other method: whoever asks may make one up."""
UNMATCHED: Final = "unmatched"
NO_ANSWER: Final = "none"
FAULT: Final = "500"
"""What Starlette's outermost layer answers for an exception that passes through here."""


class Requests:
    """What was asked so far. Written by the event loop's thread, read by any."""

    def __init__(self) -> None:
        self._answered: dict[tuple[str, str, str], int] = {}
        self._durations: dict[tuple[str, str], Durations] = {}

    @property
    def answered(self) -> Mapping[tuple[str, str, str], int]:
        """Requests by (method, route, status)."""
        return self._answered.copy()

    @property
    def durations(self) -> Mapping[tuple[str, str], Distribution]:
        """How long they took, seconds, by (method, route)."""
        return {key: taken.so_far for key, taken in self._durations.copy().items()}

    def note(self, method: str, route: str, status: str, duration_s: float) -> None:
        """Count one."""
        key = method, route, status
        self._answered[key] = self._answered.get(key, 0) + 1
        durations = self._durations.get((method, route))
        if durations is None:
            durations = self._durations[method, route] = Durations()
        durations.observe(duration_s)


class CountRequests:
    """Notes each request with its answer (ASGI middleware); stands outside of all others."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then count it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began = time.perf_counter()
        root = scope.get("root_path", "")
        status = NO_ANSWER

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if status == NO_ANSWER:
                status = FAULT
            raise
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER
            took_s = time.perf_counter() - began
            self._requests.note(method, route_of(scope, root), status, took_s)
        return None


def route_of(scope: Scope, root: str = "") -> str:
    """The template of the route that took a request, such as ``/api/v1/runs/{run_id}``.

    ``root`` is the scope's ``root_path`` of before. From the raw address only what every request to
    the route has in common is taken, so that the number of answers is that of the routes.
    """
    if "endpoint" not in scope:
        return UNMATCHED
    path: str = scope["path"]
    values = scope.get("path_params", {})
    if scope.get("root_path", "") != root:  # below a mount, such as one of files
        return f"{scope['root_path']}/…"
    if not values:
        return path
    # A route knows its template below the prefix with which it was included, and no more.
    template: str = getattr(scope.get("route"), "path_format", UNMATCHED)
    filled = template.format(**values)
    return path.removesuffix(filled) + template if path.endswith(filled) else template
