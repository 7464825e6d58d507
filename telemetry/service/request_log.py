"""A line a request, as JSON, with an id that is in the answer, too."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from re import compile as pattern
from secrets import token_hex
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

HEADER: Final = "X-Request-ID"
_NAME: Final = HEADER.lower().encode()
_GIVEN: Final = pattern(r"[A-Za-z0-9._-]{1,64}")


class RequestLog:
    """Numbers requests and logs each with its answer (ASGI middleware).

    The id is the one that the request brings, where that is harmless text, or a random one. What
    stands behind the ``?`` of an address is not logged, and neither is any header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then log."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        request_id = _given(scope) or token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((_NAME, request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            peer = scope.get("client")
            facts = {
                "request_id": request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "duration_ms": round((time.perf_counter() - began) * 1000, 1),
                "peer": None if peer is None else peer[0],
                "who": state.get("who"),
            }
            quiet = scope["path"] in ("/healthz", "/readyz") and status < 400
            logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"facts": facts})
        return None


def _given(scope: Scope) -> str | None:
    """The id that a request brings, the first if it brings several."""
    for name, value in scope["headers"]:
        if name == _NAME:
            given = value.decode("latin-1")
            return given if _GIVEN.fullmatch(given) else None
    return None


_encode: Final = json.JSONEncoder(default=str).encode
"""Made once: `json.dumps` makes an encoder of its own for every line that asks for something."""


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the facts of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Escaped beyond ASCII: no text of a client can look like another line, or colour a terminal.
        return _encode(line)
