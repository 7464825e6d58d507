"""What stands before the routes: host names, response headers, the read token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final, Protocol

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from telemetry.service.problems import problem
from telemetry.service.sessions import COOKIE, Sessions

LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_ENCODED: Final = [
    (name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()
]
"""As ASGI has headers: names in lower case."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class HostCheck:
    """Answers only requests for names that are ours (ASGI middleware).

    Against DNS rebinding: a page in a browser on this machine can make its own name resolve to
    127.0.0.1 and then read what is served here, but its requests carry its own name. ``*`` among
    the names lets any pass: for a server behind an ingress, where a read token keeps others out.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = LOOPBACK_NAMES | {name.lower().strip("[]") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 400."""
        if scope["type"] != "http" or self._is_ours(scope):
            await self._app(scope, receive, send)
        else:
            refusal = problem(400, "this server does not answer to the name in the Host header")
            await refusal(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        return "*" in self._names or host_name(hosts[0].decode("latin-1")) in self._names


def host_name(host: str) -> str:
    """The name in a Host header: without port, brackets and a final dot, in lower case."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].removesuffix(".").lower()


class SecurityHeaders:
    """Adds `SECURITY_HEADERS` to each response that does not have its own (ASGI middleware)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and complete the response's headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                own = {name for name, _ in headers}
                headers.extend(header for header in _ENCODED if header[0] not in own)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Readers(Protocol):
    """Who may read: what the page, ``/metrics`` and ``/login`` need to know of tokens."""

    @property
    def guarded(self) -> bool:
        """Whether there is a token at all."""
        ...

    def __call__(self, request: Request) -> None:
        """Raise 401 unless the request may read, 400 where its address holds a token."""
        ...

    def check_url(self, request: Request) -> None:
        """Raise 400 if the address holds a token, right or wrong."""
        ...

    def admits(self, request: Request) -> bool:
        """Whether the request may read; nothing is counted."""
        ...

    def login(self, presented: str) -> str | None:
        """A new session's id for who presents a token to read; None for others."""
        ...


class ReadAccess:
    """Lets in who presents the read token as ``Authorization: Bearer`` (a FastAPI dependency).

    A browser presents it once, to `login`, and then the cookie of a session. Without a token of its
    own it lets everybody in. ``refused`` is called for each refusal.
    """

    def __init__(
        self,
        token: str | None,
        refused: Callable[[], None],
        sessions: Sessions | None = None,
    ) -> None:
        self._token = None if token is None else token.encode()
        self._refused = refused
        self._sessions = sessions or Sessions()

    @property
    def guarded(self) -> bool:
        """Whether there is a token at all."""
        return self._token is not None

    def __call__(self, request: Request) -> None:
        """Raise 401 unless the request may read, 400 where its address holds a token."""
        self.check_url(request)
        if self.admits(request):
            return
        self._refused()
        raise HTTPException(
            401,
            "a read token is needed: Authorization: Bearer <token>",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def check_url(self, request: Request) -> None:
        """Raise 400 if the address holds a token, right or wrong; it is counted like a wrong one.

        An address ends up in logs and histories, so whoever puts a token there is told at once.
        """
        if self.guarded and any("token" in name.lower() for name in request.query_params):
            self._refused()
            raise HTTPException(
                400, "no token in an address: use Authorization: Bearer <token>, or /login"
            )

    def admits(self, request: Request) -> bool:
        """Whether the request may read; nothing is counted."""
        if self._token is None:
            return True
        by_token = self._matches(request.headers.get("authorization"), self._token)
        return by_token or self._sessions.holds(request.cookies.get(COOKIE))

    def login(self, presented: str) -> str | None:
        """A new session's id for who presents the token; None, and a refusal, for others."""
        if self._token is not None and compare_digest(presented.encode(), self._token):
            return self._sessions.open()
        self._refused()
        return None

    @staticmethod
    def _matches(authorization: str | None, token: bytes) -> bool:
        scheme, _, presented = (authorization or "").partition(" ")
        # Both comparisons always take place, and the token's in constant time.
        return compare_digest(presented.strip().encode(), token) & (scheme.lower() == "bearer")


def wants_html(request: Request) -> bool:
    """Whether a browser asks: it names HTML, other programs take anything."""
    return "text/html" in request.headers.get("accept", "").lower()
