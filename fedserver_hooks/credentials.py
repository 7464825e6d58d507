"""How a client proves who it is: tokens, and whatever else gRPC takes for call credentials.

`read_credentials` accepts a plain string, our `BearerToken`, an authentication plugin of gRPC's
(`grpc.AuthMetadataPlugin`, or any callable of that protocol: ai4flwr's ``BearerTokenAuthPlugin``),
and `grpc.CallCredentials` (ai4flwr's ``plugin.call_credentials()``). Nothing here logs a token or
puts one into a text.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import grpc

API_PREFIX: Final = "flt_"
"""What a token of the HTTP API begins with; such a one is not for FL clients."""
SERVICE: Final = "flwr.proto.FlowerService"
_PLUGIN_WAIT_S: Final = 30.0

Metadata = tuple[tuple[str, str | bytes], ...]


class CredentialsError(RuntimeError):
    """A plugin gave no metadata."""


class InsecureToken(ValueError):
    """A token would travel where others could read it."""


@dataclass(frozen=True)
class BearerToken:
    """A token of ``fedserver tokens create``; sent as ``authorization: Bearer <token>``.

    ``header`` may be ``x-authorization``, for servers that look there. Raises ValueError, which
    does not repeat the token.
    """

    token: str = field(repr=False)
    header: str = "authorization"

    def __post_init__(self) -> None:
        token = self.token.strip()
        if not token or not all("!" <= character <= "~" for character in token):
            raise ValueError("a token is one word of printable ASCII, without 'Bearer' before it")
        if token.startswith(API_PREFIX):
            raise ValueError(
                f"this is a token of the HTTP API ({API_PREFIX}…); a client needs one of "
                "`fedserver tokens create`"
            )
        if self.header not in ("authorization", "x-authorization"):
            raise ValueError(f"header {self.header!r}: authorization or x-authorization")
        object.__setattr__(self, "token", token)

    @property
    def metadata(self) -> Metadata:
        """What goes with the call."""
        return ((self.header, f"Bearer {self.token}"),)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was given, as one of two kinds; see `read_credentials`."""

    metadata: Callable[[str], Metadata] | None = field(repr=False, default=None)
    """Gives the metadata of a call to the service at this URL."""
    opaque: Any = field(repr=False, default=None)
    """`grpc.CallCredentials`: only gRPC can look inside, and does so over TLS only."""


def read_credentials(given: object) -> Credentials | None:
    """What ``call_credentials`` means; None for None. TypeError for what is none."""
    if given is None:
        return None
    if isinstance(given, str):
        given = BearerToken(given)
    if isinstance(given, BearerToken):
        metadata = given.metadata
        return Credentials(lambda _: metadata)
    if isinstance(given, grpc.CallCredentials):
        return Credentials(opaque=given)
    if callable(given):
        plugin = given
        return Credentials(lambda url: _ask(plugin, url))
    raise TypeError(
        f"call_credentials is a {type(given).__name__}: give a token as text, a BearerToken, an "
        "authentication plugin or grpc.CallCredentials"
    )


def check_secrecy(credentials: Credentials, address: str, *, allow_plaintext: bool) -> None:
    """Raise `InsecureToken` where a token may not go to this address without TLS."""
    if credentials.opaque is not None:
        raise InsecureToken(
            "gRPC sends grpc.CallCredentials over TLS only: give root_certificates, or give the "
            "token itself (or the plugin) with allow_plaintext_token=True"
        )
    if not allow_plaintext and not is_loopback(address):
        raise InsecureToken(
            f"the token would travel to {address} in plain text: give root_certificates, or say "
            "allow_plaintext_token=True if the network between is yours"
        )


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` is on this very machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Context(NamedTuple):
    """What gRPC tells a plugin about the call (`grpc.AuthMetadataContext`)."""

    service_url: str
    method_name: str


def _ask(plugin: Callable[..., object], url: str) -> Metadata:
    """A plugin's metadata; it may answer from any thread."""
    answered = threading.Event()
    answer: list[tuple[Iterable[Any], Exception | None]] = []

    def callback(metadata: Iterable[Any], error: Exception | None) -> None:
        answer.append((metadata, error))
        answered.set()

    plugin(_Context(url, "Join"), callback)
    if not answered.wait(_PLUGIN_WAIT_S):
        raise CredentialsError(f"call_credentials gave no answer within {_PLUGIN_WAIT_S:g} s")
    metadata, error = answer[0]
    if error is not None:
        raise CredentialsError("call_credentials gave an error") from error
    return tuple((key, value) for key, value in metadata)
