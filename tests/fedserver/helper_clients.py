"""Clients that start with our `start_client`, and a proxy that ends TLS for them, for tests."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import AbstractContextManager, suppress
from typing import Any

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported, which is next

import grpc

from fedserver_hooks.client import start_client
from tests.fedserver.clients import Script, make_client
from tests.fedserver.pki import Files

GRPC_RACE = r"ignore:Exception in thread Thread-\d+ \(_run\)"
"""A filter for warnings: gRPC's own thread that watches a channel, seldom, finds it closed already."""


class HelperThread(AbstractContextManager["HelperThread"]):
    """A client in a thread of this process, by `fedserver_hooks.client.start_client`."""

    def __init__(self, address: str, script: Script | None = None, **options: Any) -> None:
        self.release = threading.Event()
        self.in_fit = threading.Event()
        self.error: BaseException | None = None
        self._options: dict[str, Any] = {
            "server_address": address,
            "client": make_client(script or Script(), self.release, self.in_fit),
            "max_wait_time": 0,
        } | options
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            start_client(**self._options)
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def wait(self, timeout_s: float = 10.0) -> BaseException | None:
        """Wait until `start_client` has returned; what it raised, None if it just returned."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the client is still running"
        return self.error

    def refusal(self, timeout_s: float = 10.0) -> str:
        """Code and text with which the server ended the connection."""
        error = self.wait(timeout_s)
        assert isinstance(error, grpc.Call), error
        return f"{error.code().name}: {error.details()}"

    def __exit__(self, *_: object) -> None:
        self.release.set()


class TlsProxy(AbstractContextManager["TlsProxy"]):
    """What an ingress does: ends TLS, and passes HTTP/2 on in plain text, byte for byte."""

    def __init__(self, target: str, files: Files) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.key)
        self._context.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError):
            inside = socket.create_connection(self._target)
            outside = self._context.wrap_socket(plain, server_side=True)
            self._sockets += [inside, outside]
            threading.Thread(target=_copy, args=(inside, outside), daemon=True).start()
            _copy(outside, inside)

    def __exit__(self, *_: object) -> None:
        for open_socket in self._sockets:
            with suppress(OSError):
                open_socket.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
