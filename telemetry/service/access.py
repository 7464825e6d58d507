"""Who may do what at the service: tokens of its interface, and how often they may ask."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from math import ceil
from types import MappingProxyType
from typing import Final

from fastapi import Request
from starlette.exceptions import HTTPException

from telemetry.domain import utc_now
from telemetry.errors import StoreError
from telemetry.service.sessions import COOKIE, Sessions
from telemetry.store.api_tokens import CLIENT_PREFIX, PREFIX, ApiToken, Scope, digest_of
from telemetry.store.base import Store

logger = logging.getLogger(__name__)

RENEW_S: Final = 1.0
"""How soon a token that was made or revoked elsewhere is known here."""
NOBODY: Final = ""
"""The writer where there is no token at all: a service that only this machine reaches."""
REFUSALS_PER_S: Final = 1.0
REFUSALS_AT_ONCE: Final = 20
_MAX_PEERS: Final = 10_000


class KnownTokens:
    """The tokens in a store, read in the background: no request waits for the database.

    Raises `StoreError` where they cannot be read at first; later on the last ones known hold.
    """

    def __init__(self, store: Store, renew_s: float = RENEW_S) -> None:
        self._store = store
        self._renew_s = renew_s
        self._stopped = threading.Event()
        self._failing = False
        self._known: Mapping[str, ApiToken] = MappingProxyType({})
        self._read()
        self._thread = threading.Thread(target=self._watch, name="telemetry-tokens", daemon=True)

    def start(self) -> None:
        """Begin to look for changes."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(1)

    @property
    def empty(self) -> bool:
        """Whether no token was ever made: a revoked one does not open the service again."""
        return not self._known

    def by_digest(self, sha256: str) -> ApiToken | None:
        """The token of that digest, whatever its state."""
        return self._known.get(sha256)

    def _read(self) -> None:
        found = self._store.api_tokens()
        self._known = MappingProxyType({token.sha256: token for token in found})

    def _watch(self) -> None:
        while not self._stopped.wait(self._renew_s):
            try:
                self._read()
                self._failing = False
            except StoreError as error:
                if not self._failing:
                    logger.warning("tokens cannot be read, those known before hold: %s", error)
                self._failing = True


class RateLimit:
    """So many requests a second from each who asks, and so many at once."""

    def __init__(
        self, per_s: float, at_once: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._at_once = at_once
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def wait_s(self, who: str) -> int:
        """0, and the request is counted; or after how many seconds to come again."""
        now = self._clock()
        with self._lock:
            left, then = self._left.pop(who, (self._at_once, now))
            left = min(self._at_once, left + (now - then) * self._per_s)
            if left >= 1:
                self._left[who] = left - 1, now
            else:
                self._left[who] = left, now
            while len(self._left) > _MAX_PEERS:  # whoever has not asked for longest
                del self._left[next(iter(self._left))]
        return 0 if left >= 1 else max(1, ceil((1 - left) / self._per_s))


class ApiAccess:
    """Lets in who presents a token with the right scope as ``Authorization: Bearer``.

    A browser presents a token to read once, to `login`, and then the cookie of a session; that ends
    with its token. While no token was ever made everybody is let in, unless the service must be
    ``closed``. ``refused`` is called for each refusal.
    """

    def __init__(
        self,
        tokens: KnownTokens,
        refused: Callable[[], None],
        *,
        limit: RateLimit,
        closed: bool,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tokens = tokens
        self._refused = refused
        self._closed = closed
        self._clock = clock
        self._sessions = Sessions()
        self._limit = limit
        self._refusals = RateLimit(REFUSALS_PER_S, REFUSALS_AT_ONCE)

    @property
    def guarded(self) -> bool:
        """Whether there is a token at all."""
        return self._closed or not self._tokens.empty

    def __call__(self, request: Request) -> None:
        """Let in who may read: raise 401, 403, 429, or 400 where the address holds a token."""
        self._require(request, "read")

    def writer(self, request: Request) -> str:
        """Let in who may write, as `__call__` does, and say whose the runs are."""
        return self._require(request, "write")

    def check_url(self, request: Request) -> None:
        """Raise 400 if the address holds a token, right or wrong; it is counted like a wrong one."""
        if any("token" in name.lower() for name in request.query_params):
            self._refused()
            raise HTTPException(
                400, "no token in an address: use Authorization: Bearer <token>, or /login"
            )

    def admits(self, request: Request) -> bool:
        """Whether the request may read; nothing is counted."""
        if not self.guarded:
            return True
        token = self._presented(request)[0]
        return token is not None and token.may("read")

    def login(self, presented: str) -> str | None:
        """A new session's id for who presents a token to read; None, and a refusal, for others."""
        sha256 = digest_of(presented)
        token = self._valid(sha256)
        if token is not None and token.may("read"):
            return self._sessions.open(sha256)
        self._refused()
        return None

    def _require(self, request: Request, scope: Scope) -> str:
        self.check_url(request)
        if not self.guarded:
            self._count(request, f"peer {_peer(request)}")
            return NOBODY
        token, problem = self._presented(request)
        if token is None:
            raise self._refusal(request, 401, f"{problem}: Authorization: Bearer <token>")
        if not token.may(scope):
            raise self._refusal(request, 403, f"the token of {token.label} may not {scope}")
        self._count(request, token.label)
        return token.label

    def _presented(self, request: Request) -> tuple[ApiToken | None, str]:
        """The valid token of a request; or None and what is wrong."""
        header = request.headers.get("authorization")
        if header is None:
            holder = self._sessions.holder(request.cookies.get(COOKIE))
            # A session stands for reading: nothing that writes may be done from a browser.
            known = None if holder is None or request.method != "GET" else self._valid(holder)
            return known, "a token is needed"
        kind, _, presented = header.partition(" ")
        presented = presented.strip()
        if kind.lower() != "bearer" or not presented:
            return None, "a token is needed"
        if presented.startswith(CLIENT_PREFIX):
            return None, (
                f"this is the token of an FL client ({CLIENT_PREFIX}…); the service needs one of its "
                f"own ({PREFIX}…, from `fedserver telemetry tokens create`)"
            )
        token = self._tokens.by_digest(digest_of(presented))
        if token is None:
            return None, "token unknown"
        state = token.state(self._clock())
        return (token, "") if state == "valid" else (None, f"token {state}")

    def _valid(self, sha256: str) -> ApiToken | None:
        token = self._tokens.by_digest(sha256)
        return token if token is not None and token.state(self._clock()) == "valid" else None

    def _count(self, request: Request, who: str) -> None:
        request.state.who = who
        wait_s = self._limit.wait_s(who)
        if wait_s:
            raise HTTPException(429, "too many requests", headers={"Retry-After": str(wait_s)})

    def _refusal(self, request: Request, status: int, detail: str) -> HTTPException:
        self._refused()
        wait_s = self._refusals.wait_s(_peer(request))
        if wait_s:
            return HTTPException(
                429, "too many refused requests", headers={"Retry-After": str(wait_s)}
            )
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        return HTTPException(status, detail, headers=headers)


def _peer(request: Request) -> str:
    return "unknown" if request.client is None else request.client.host
