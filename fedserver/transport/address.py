"""Whether an address can be listened on, asked before anything is started.

gRPC would share a port with another server, and Flower's helper ends the process: both too late for
a message that names the configuration key.
"""

from __future__ import annotations

import errno
import socket
from typing import Any, Final

from fedserver.transport.base import AddressError

_MAX_PORT: Final = 65535
_Candidate = tuple[socket.AddressFamily, Any]
"""An address family and what `socket.bind` takes for it."""


def check_address(address: str) -> None:
    """Try to listen on ``host:port`` and let go again. Raises `AddressError`; port 0 is any."""
    host, port = split_address(address)
    problems = [_try_bind(candidate, port) for candidate in _resolve(address, host, port)]
    # A name may stand for addresses that this machine lacks; a port that is taken is one too many.
    in_use = [problem for problem in problems if problem == errno.EADDRINUSE]
    if in_use or all(problems):
        raise AddressError(address, _words((in_use or problems)[0], host, port))


def split_address(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``host:port``. Raises `AddressError`."""
    host, colon, port_text = address.rpartition(":")
    if "://" in address:
        raise AddressError(address, "write host:port, without a scheme")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise AddressError(address, "write host:port, for example 127.0.0.1:5000")
    if not (port_text.isascii() and port_text.isdigit() and int(port_text) <= _MAX_PORT):
        raise AddressError(address, f"the port must be a number from 0 to {_MAX_PORT}")
    return host.removeprefix("[").removesuffix("]"), int(port_text)


def _resolve(address: str, host: str, port: int) -> list[_Candidate]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise AddressError(address, f"the host {host!r} cannot be resolved") from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]


def _try_bind(candidate: _Candidate, port: int) -> int | None:
    """The errno that stands in the way, None if nothing does."""
    family, sockaddr = candidate
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(sockaddr)
            if port:
                probe.listen(1)  # two sockets may both be bound; only one may listen
    except OSError as error:
        return error.errno or errno.EINVAL
    return None


def _words(problem: int | None, host: str, port: int) -> str:
    match problem:
        case errno.EADDRINUSE:
            return f"port {port} is in use by another program"
        case errno.EACCES | errno.EPERM:
            return f"this user may not listen on port {port}"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine"
        case _:
            return f"cannot listen: {errno.errorcode.get(problem or 0, problem)}"
