"""The gRPC server of Flower's bidirectional protocol: one stream a client, bytes in and out.

Not Flower's own servicer and bridge: those end the stream at a timeout (and with it the client for
good), raise in the server's log when a client leaves, and need a thread a request on top of two a
client. The protocol itself is small: the server sends a message, the client answers, until one of
them ends the stream. Bytes are passed through, so that a model is serialized once, not once a client.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import unquote

import grpc
from flwr.proto import transport_pb2

from fedserver.transport.address import check_address
from fedserver.transport.base import AddressError, Gate, Holder, Refused, Unavailable
from fedserver.transport.nodes import Node, Nodes

MAX_STREAMS: Final = 1000
"""Clients at one time; more are refused with RESOURCE_EXHAUSTED."""
MAX_MESSAGE_BYTES: Final = 2**31 - 1
PING_TIMEOUT_S: Final = 20.0
"""How long a ping's answer is waited for at most, or ``keepalive_s`` where that is less."""
_BYTES_PER_MB: Final = 1024**2
_SERVICE: Final = transport_pb2.DESCRIPTOR.services_by_name["FlowerService"]
_METHOD: Final = _SERVICE.methods_by_name["Join"]

Certificates = tuple[bytes | None, bytes, bytes]
"""PEM texts: certificate authority (not needed), server certificate, server key."""


class Peer:
    """Where a connection comes from, read from gRPC's ``ipv4:127.0.0.1:50000``."""

    def __init__(self, peer: str) -> None:
        kind, _, rest = unquote(peer).partition(":")
        self.host = rest.rpartition(":")[0].strip("[]") if kind.startswith("ip") else kind
        self.loopback = kind == "unix" or _is_loopback(self.host)


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class BidiServer:
    """Connects clients to `Nodes`. `start` opens the port; `stop` is the end of it."""

    def __init__(
        self,
        nodes: Nodes,
        address: str,
        *,
        certificates: Certificates | None,
        gate: Gate | None = None,
        max_message_mb: int,
        keepalive_s: float,
        on_join: Callable[[Node, Peer], None],
        on_leave: Callable[[Node], None],
    ) -> None:
        self._nodes = nodes
        self._wanted = address
        self._certificates = certificates
        self._gate = gate
        self._on_join = on_join
        self._on_leave = on_leave
        self._options = _options(max_message_mb, keepalive_s)
        self._server: grpc.Server | None = None
        self.address = address
        """``host:port``; with the real port once started."""

    def start(self) -> None:
        """Open the port. Raises `AddressError`."""
        check_address(self._wanted)
        pool = ThreadPoolExecutor(MAX_STREAMS, thread_name_prefix="fl-client")
        server = grpc.server(pool, options=self._options, maximum_concurrent_rpcs=MAX_STREAMS)
        server.add_generic_rpc_handlers((_Calls(self._join, self._other),))
        try:
            port = self._open_port(server)
        except RuntimeError as error:
            raise AddressError(self._wanted, "cannot listen on it") from error
        server.start()
        self._server = server
        self.address = f"{self._wanted.rpartition(':')[0]}:{port}"

    def stop(self, grace_s: float) -> None:
        """End every connection within ``grace_s`` and free the port."""
        self._nodes.hang_up("the server has stopped")
        if self._server is not None:
            self._server.stop(grace_s).wait()
            self._server = None

    def _open_port(self, server: grpc.Server) -> int:
        if self._certificates is None:
            return int(server.add_insecure_port(self._wanted))
        authority, certificate, key = self._certificates
        credentials = grpc.ssl_server_credentials(((key, certificate),), authority)
        return int(server.add_secure_port(self._wanted, credentials))

    # --- one connection ------------------------------------------------------------------------

    def _join(self, answers: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Send what is in the outbox until it says to hang up; in a thread of gRPC's pool."""
        holder = self._admit(context)
        peer = Peer(context.peer())
        node = self._nodes.join(peer.host, lambda joining: self._on_join(joining, peer), holder)
        if node is None:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the training is over")
            return
        reader = threading.Thread(
            target=self._read, args=(node, answers), name=f"fl-answers-{node.number}", daemon=True
        )
        reader.start()
        while isinstance(item := node.outbox.get(), bytes):
            yield item
        if item.reason is not None:
            # Here and not in the thread that wants it: gRPC aborts only from within the stream.
            code = grpc.StatusCode.UNAUTHENTICATED if item.expelled else grpc.StatusCode.UNAVAILABLE
            context.abort(code, item.reason)

    def _other(self, _: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Any other method: there is none, but that too is only for those who may know."""
        self._admit(context)
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield b""

    def _admit(self, context: Any) -> Holder | None:
        """Who is calling; None without a gate. Where it may not, this is the end of the call."""
        if self._gate is None:
            return None
        peer = unquote(context.peer()).partition(":")[2]
        try:
            return self._gate.admit(context.invocation_metadata(), peer)
        except Refused as error:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, error.reason)
        except Unavailable as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, error.reason)
        raise AssertionError("abort raises")

    def _read(self, node: Node, answers: Iterator[bytes]) -> None:
        """Deliver answers until the connection is gone: by itself, hung up, killed or silent."""
        try:
            for data in answers:
                self._nodes.deliver(node, data)
        except grpc.RpcError:
            pass
        finally:
            self._nodes.leave(node)
            self._on_leave(node)


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc is untyped
    """Every call on the port: clients' streams, and whatever else somebody asks for.

    A gate must see the others too; without serializers they are bytes in either direction.
    """

    def __init__(self, join: Any, other: Any) -> None:
        self._join = grpc.stream_stream_rpc_method_handler(join)
        self._other = grpc.stream_stream_rpc_method_handler(other)

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a call."""
        is_join = handler_call_details.method == f"/{_SERVICE.full_name}/{_METHOD.name}"
        return self._join if is_join else self._other


def _options(max_message_mb: int, keepalive_s: float) -> list[tuple[str, int]]:
    max_bytes = min(max_message_mb * _BYTES_PER_MB, MAX_MESSAGE_BYTES)
    return [
        ("grpc.so_reuseport", 0),  # else two servers share a port without a word
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.max_send_message_length", max_bytes),
        ("grpc.max_receive_message_length", max_bytes),
        # A client that was unplugged or frozen is noticed after this time and a ping's time-out,
        # which is a minute if gRPC is left to itself. A stream is silent while its client trains, so
        # pings go on without data; gRPC's own threads answer them, however busy the client is.
        ("grpc.keepalive_time_ms", int(keepalive_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(min(keepalive_s, PING_TIMEOUT_S) * 1000)),
        ("grpc.http2.ping_timeout_ms", int(min(keepalive_s, PING_TIMEOUT_S) * 1000)),
        ("grpc.http2.max_pings_without_data", 0),
    ]
