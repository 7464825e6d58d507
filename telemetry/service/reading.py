"""The body of a request, within bounds of size, time and kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

JSON_TYPE: Final = "application/json"
TIMEOUT_S: Final = 60.0
"""How long a body may take to arrive."""
MAX_AT_ONCE_BYTES: Final = 64 * 1024 * 1024
"""Of all bodies that are being read and stored: memory stays bounded, senders come again."""
SMALL_BYTES: Final = 64 * 1024
"""Validated in the event loop; what is larger goes to a thread."""

_T = TypeVar("_T")


class Bodies:
    """Reads bodies, and remembers how many bytes are on their way."""

    def __init__(self) -> None:
        self._bytes = 0

    async def take(self, request: Request, most: int, parse: Callable[[bytes], _T]) -> _T:
        """What ``parse`` makes of the body; HTTP errors for what cannot be read."""
        _check_kind(request)
        if _stated_length(request) > most:
            raise _too_large(most)
        body = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async for part in request.stream():
                    self._bytes += len(part)
                    body += part
                    if len(body) > most:
                        raise _too_large(most)
                    if self._bytes > MAX_AT_ONCE_BYTES:
                        raise HTTPException(
                            503, "too much is being sent at once", headers={"Retry-After": "1"}
                        )
            if len(body) <= SMALL_BYTES:
                return parse(bytes(body))
            return await run_in_threadpool(parse, bytes(body))
        except TimeoutError:
            raise HTTPException(408, f"the body took more than {TIMEOUT_S:g} s") from None
        except ClientDisconnect:
            raise HTTPException(400, "the body is not complete") from None
        finally:
            self._bytes -= len(body)


def _check_kind(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        # A page elsewhere cannot send this type unasked: it cannot use a browser on this machine.
        raise HTTPException(415, f"a body of {JSON_TYPE} is needed")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body must not be compressed")


def _stated_length(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isascii() and length.isdigit() else 0


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the body has more than {most} bytes")
