"""`start_client`: Flower's own, with a token, with patience, and with a reason when it fails.

Beside whatever Flower is installed, from 1.13 on. Flower has no hook for credentials, so the one name
by which its module opens a channel is replaced, once, by a function that calls the original and
intercepts the channel where a `start_client` of ours is the caller.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc

from fedserver_hooks.credentials import (
    SERVICE,
    BearerToken,
    Credentials,
    CredentialsError,
    InsecureToken,
    Metadata,
    check_secrecy,
    read_credentials,
)
from fedserver_hooks.failing import reporting, safe_text

__all__ = [
    "DEFAULT_WAIT_S",
    "BearerToken",
    "CredentialsError",
    "InsecureToken",
    "start_client",
]

logger = logging.getLogger(__name__)

DEFAULT_WAIT_S: Final = 300.0
"""How long a server may be away."""
FAREWELL_S: Final = 5.0
"""How long the last words of a failing client may take to arrive."""
_BACKOFF_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)
_FINAL: Final = ("the training is over", "the server has stopped", "SSL_ERROR_SSL")
"""In what UNAVAILABLE says: trying again makes no certificate good and no training new."""
_HOMES: Final = ("flwr.compat.client.grpc_client.connection", "flwr.client.grpc_client.connection")
"""Where Flower's connection is, in newer and in older versions."""


def start_client(
    *,
    server_address: str,
    client: Any = None,
    client_fn: Callable[..., Any] | None = None,
    root_certificates: bytes | str | Path | None = None,
    call_credentials: object = None,
    insecure: bool | None = None,
    max_wait_time: float | None = DEFAULT_WAIT_S,
    max_retries: int | None = None,
    allow_plaintext_token: bool = False,
    report_failures: bool = True,
    **others: Any,
) -> None:
    """Train with the server until it says that it is over; like ``flwr.client.start_client``.

    Args:
        server_address: ``host:port``.
        client: a ``Client`` or a ``NumPyClient``; or ``client_fn``, which makes one.
        root_certificates: PEM text of authorities, or the file of it; with it the connection is TLS.
        call_credentials: a token as text, a `BearerToken`, an authentication plugin (ai4flwr's) or
            `grpc.CallCredentials`.
        insecure: as Flower's: False is TLS with the system's certificates where there are no
            ``root_certificates``.
        max_wait_time: seconds for which a server may be away, before the first connection and after
            a broken one; None is no limit, 0 tries once.
        max_retries: how often to try again in that time; None is no limit.
        allow_plaintext_token: send the token without TLS to another machine. Only inside a network
            that is one's own.
        report_failures: tell the server type and text of what the client raises, without quoted
            parts; it is raised here in any case.
        others: whatever else Flower's takes, such as ``grpc_max_message_length``.

    Raises what the client raises. `grpc.RpcError` if the server refuses (UNAUTHENTICATED is never
    tried again), or is away for longer than that. `InsecureToken` for a token without TLS, ValueError
    and TypeError for wrong arguments, before anything is sent.
    """
    if (client is None) == (client_fn is None):
        raise ValueError("give either client or client_fn")
    plain = root_certificates is None if insecure is None else insecure
    credentials = read_credentials(call_credentials)
    if credentials is not None and plain:
        check_secrecy(credentials, server_address, allow_plaintext=allow_plaintext_token)
    flower = _intercepted_flower()
    patience = _Patience(max_wait_time, max_retries)
    while True:
        link = _Link(credentials, f"{'http' if plain else 'https'}://{server_address}/{SERVICE}")
        make = client_fn or (lambda *_: client)
        if report_failures:
            make = link.reporting(make)
        token = _link.set(link)
        try:
            flower(
                server_address=server_address,
                client_fn=make,
                root_certificates=_read(root_certificates),
                insecure=insecure,
                **others,
            )
            return
        except grpc.RpcError as error:
            wait_s = patience.after(error, link)
            if wait_s is None:
                raise
        finally:
            _link.reset(token)
        time.sleep(wait_s)


def _read(certificates: bytes | str | Path | None) -> bytes | None:
    return Path(certificates).read_bytes() if isinstance(certificates, str | Path) else certificates


class _Patience:
    """How long to wait before trying again, and when to stop."""

    def __init__(self, limit_s: float | None, max_retries: int | None) -> None:
        self._limit_s = limit_s
        self._max_retries = max_retries
        self._tries = 0
        self._since = time.monotonic()

    def after(self, error: Any, link: _Link) -> float | None:
        """Seconds to wait after this error; None if it is final."""
        details = str(error.details() if isinstance(error, grpc.Call) else "")
        if link.failure is not None or not isinstance(error, grpc.Call):
            return None  # the client's own
        if error.code() is not grpc.StatusCode.UNAVAILABLE or any(w in details for w in _FINAL):
            return None
        if link.received:  # it was here: a new absence begins
            self._tries, self._since = 0, time.monotonic()
        away_s = time.monotonic() - self._since
        left_s = float("inf") if self._limit_s is None else self._limit_s - away_s
        if left_s <= 0 or (self._max_retries is not None and self._tries >= self._max_retries):
            return None
        wait_s = min(_BACKOFF_S[min(self._tries, len(_BACKOFF_S) - 1)], left_s)
        self._tries += 1
        limit = "" if self._limit_s is None else f", for {left_s:.0f} s more"
        logger.warning(
            "the server is not there (%s): trying again in %.1f s%s", details[:200], wait_s, limit
        )
        return wait_s


# --- one connection ------------------------------------------------------------------------------


class _Link(grpc.StreamStreamClientInterceptor):  # type: ignore[misc]  # grpc is untyped
    """One stream to the server: its credentials, and how a failing client ends it."""

    def __init__(self, credentials: Credentials | None, url: str) -> None:
        self._credentials = credentials
        self._url = url
        self._secrets: set[str] = set()
        self.asked = 0
        """Messages of the server that are here."""
        self.failure: Exception | None = None

    @property
    def received(self) -> bool:
        """Whether the server has said anything."""
        return self.asked > 0

    def reporting(self, make: Callable[..., Any]) -> Callable[[Any], Any]:
        """``client_fn`` for Flower: the client, with its failure told to the server."""

        def client_fn(context: Any) -> Any:
            return reporting(lambda: make(context), self._failed)

        return client_fn

    def intercept_stream_stream(
        self, continuation: Any, client_call_details: Any, request_iterator: Iterator[Any]
    ) -> Any:
        """gRPC's hook: the call with credentials, its requests and answers passed along."""
        details = client_call_details
        metadata: Metadata = ()
        opaque = details.credentials
        if self._credentials is not None and self._credentials.metadata is not None:
            metadata = self._credentials.metadata(self._url)
            self._secrets |= {str(value).rpartition(" ")[2] for _, value in metadata}
        elif self._credentials is not None:
            opaque = self._credentials.opaque
        new_details = _CallDetails(
            details.method,
            details.timeout,
            (*(details.metadata or ()), *metadata),
            opaque,
            details.wait_for_ready,
            details.compression,
        )
        call = continuation(new_details, self._requests(request_iterator))
        return _Answers(call, self)

    def _failed(self, error: Exception) -> str:
        self.failure = error
        return safe_text(error, self._secrets)

    def _requests(self, answers: Iterator[Any]) -> Iterator[Any]:
        """What the client sends; the stream is half-closed after a failing client's last words."""
        for number, answer in enumerate(answers, 1):
            yield answer
            if self.failure is not None and number >= self.asked:
                return


class _CallDetails(NamedTuple):
    """`grpc.ClientCallDetails`, with all that gRPC looks for."""

    method: str
    timeout: float | None
    metadata: Metadata
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Answers:
    """The server's side of the stream; a failed client's exception comes out where it is read."""

    def __init__(self, call: Any, link: _Link) -> None:
        self._call = call
        self._link = link

    def __iter__(self) -> _Answers:
        return self

    def __next__(self) -> Any:
        if self._link.failure is not None:
            self._take_leave()
            raise self._link.failure
        message = next(self._call)
        self._link.asked += 1
        return message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def _take_leave(self) -> None:
        """Wait until the server has read the last words: it ends the stream when it has."""
        hurry = threading.Timer(FAREWELL_S, self._call.cancel)
        hurry.daemon = True
        hurry.start()
        try:
            for _ in self._call:
                pass
        except grpc.RpcError:
            pass
        finally:
            hurry.cancel()


# --- Flower, whichever version -------------------------------------------------------------------

_link: ContextVar[_Link] = ContextVar("fedserver_hooks_link")
_replacing = threading.Lock()
_MARK: Final = "_fedserver_hooks"


def _intercepted_flower() -> Callable[..., None]:
    """Flower's ``start_client``, whose channels are intercepted from now on."""
    start: Callable[..., None] = import_module("flwr.client").start_client
    module = _connection_module()
    with _replacing:
        if not hasattr(module.create_channel, _MARK):
            module.create_channel = _intercepting(module.create_channel)
    return start


def _connection_module() -> Any:
    for name in _HOMES:
        try:
            module = import_module(name)
        except ModuleNotFoundError:
            continue
        if hasattr(module, "create_channel"):
            return module
    raise RuntimeError(
        "this version of Flower opens its connections in a way that is not known here"
    )


def _intercepting(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def create_channel(*args: Any, **kwargs: Any) -> Any:
        channel = original(*args, **kwargs)
        # Flower opens the channel in the thread that called `start_client`, so each caller has its
        # own; who calls Flower directly has none.
        link = _link.get(None)
        return channel if link is None else grpc.intercept_channel(channel, link)

    setattr(create_channel, _MARK, True)
    return create_channel
