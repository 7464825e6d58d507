"""The FL port with tokens and TLS, over real sockets."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.transport_pb2_grpc import FlowerServiceStub

from fedserver.gate import TokenGate
from fedserver.tokens import TokenStore
from fedserver.tokens_file import TokenFile
from fedserver.transport import BidiGrid, Holder, NullListener, prepare_flower_process
from tests.fedserver.clients import Script, wait_until
from tests.fedserver.helper_clients import GRPC_RACE, HelperThread, TlsProxy
from tests.fedserver.pki import Files, make_files

prepare_flower_process()
pytestmark = pytest.mark.filterwarnings(GRPC_RACE)


class Names(NullListener):
    """Keeps who connected."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gone: list[int] = []

    def connected(self, node: int, name: str, loopback: bool) -> None:
        """Kept."""
        self.seen.append(name)

    def disconnected(self, node: int) -> None:
        """Kept."""
        self.gone.append(node)


class Port:
    """A grid behind TLS and a gate, with clients."""

    def __init__(self, folder: Path, files: Files, stack: ExitStack, **options: Any) -> None:
        self.store = TokenStore(folder / "tokens.db")
        self.files = files
        self.refused = 0
        self.names = Names()
        self._stack = stack
        certificates = options.pop("certificates", files.texts)
        self.gate = TokenGate(self.store, refused=self._count, **options)
        self.grid = BidiGrid(
            "127.0.0.1:0", certificates=certificates, gate=self.gate, listener=self.names
        )
        self.grid.start()
        stack.callback(self.grid.stop, 0.2)
        stack.enter_context(self.gate.watching(self.grid.expel))

    def _count(self) -> None:
        self.refused += 1

    def token(self, label: str = "hospital-a", **options: Any) -> str:
        """A new token."""
        return self.store.create(label, now=datetime.now(UTC), **options)

    def client(
        self, credentials: object, script: Script | None = None, **options: Any
    ) -> HelperThread:
        """A client that shows these."""
        address: str = options.pop("address", self.grid.address)
        options = {"root_certificates": self.files.ca, "call_credentials": credentials} | options
        return self._stack.enter_context(HelperThread(address, script, **options))

    def nodes(self, count: int) -> list[int]:
        """Wait for so many clients."""
        self.grid.require(count, 10)
        return self.grid.get_node_ids()

    def train(self, count: int = 1, size: int = 6, timeout: float = 10) -> list[Message]:
        """One round with so many clients."""
        arrays = ArrayRecord([np.zeros(size, np.float32)])
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
        asked = [Message(content, node, "train") for node in self.nodes(count)]
        return self.grid.send_and_receive(asked, timeout=timeout)

    def revoke(self, label: str = "hospital-a") -> None:
        """As the command line does."""
        self.store.revoke(label, now=datetime.now(UTC))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates for all tests here."""
    return make_files(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def port(tmp_path: Path, files: Files) -> Iterator[Port]:
    """An FL port that wants tokens."""
    with ExitStack() as stack:
        yield Port(tmp_path, files, stack)


# --- who comes in --------------------------------------------------------------------------------


def test_the_right_token_trains(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    """Over TLS, called by its label; its use is noted, and the token is in no log or file."""
    token = port.token()
    with caplog.at_level(logging.DEBUG):
        client = port.client(token)
        (reply,) = port.train()
        port.grid.disconnect_all(5.0)
        assert client.wait() is None
        wait_until(lambda: port.store.stored()[0].last_used_at is not None)
    assert reply.has_content()
    assert port.names.seen == ["hospital-a"]
    assert port.refused == 0
    assert token not in caplog.text
    assert token.encode() not in port.store.path.read_bytes()


def test_who_has_no_good_token_is_refused(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    """Each fault is UNAUTHENTICATED with its reason, counted, and logged by label and peer."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    old, gone = port.token("old", expires_at=past), port.token("gone")
    port.revoke("gone")
    wrong = "flc_" + "x" * 43
    with caplog.at_level(logging.INFO):
        ends = [
            port.client(credentials).refusal()
            for credentials in (None, wrong, _headers(authorization="Basic x"), old, gone)
        ]
    reasons = [
        "token missing",
        "token unknown",
        "token malformed",
        "token expired",
        "token revoked",
    ]
    assert ends == [f"UNAUTHENTICATED: {reason}" for reason in reasons]
    assert port.refused == 5
    assert port.names.seen == []
    assert "refused a client at 127.0.0.1:" in caplog.text
    assert "token expired (old)" in caplog.text
    assert not any(token in caplog.text for token in (old, gone, wrong))


def _headers(**headers: str) -> Callable[[Any, Any], None]:
    """A plugin that gives these headers, as ai4flwr's gives its one."""
    metadata = tuple((key.replace("_", "-"), value) for key, value in headers.items())
    return lambda _, callback: callback(metadata, None)


@pytest.mark.parametrize("header", ["authorization", "x_authorization"])
def test_both_headers_are_read(port: Port, header: str) -> None:
    """ai4flwr has sent either."""
    port.client(_headers(**{header: f"Bearer {port.token()}"}))
    assert port.train()[0].has_content()


def test_every_other_call_needs_a_token_too(port: Port) -> None:
    """What methods there are is not for strangers; with a token they are told that there is none."""
    token = port.token()
    credentials = grpc.ssl_channel_credentials(port.files.ca.read_bytes())
    with grpc.secure_channel(port.grid.address, credentials) as channel:
        call = channel.unary_unary("/flwr.proto.FlowerService/Other")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError) as unknown:
            call(b"", timeout=5, metadata=(("authorization", f"Bearer {token}"),))
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_two_clients_of_one_token_are_two_nodes(port: Port) -> None:
    """A token says who, not how many; both train."""
    token = port.token()
    port.client(token)
    port.client(token)
    assert [reply.has_content() for reply in port.train(2)] == [True, True]


def test_a_store_that_cannot_be_read_lets_nobody_in_and_keeps_who_is(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    """New clients are told to come again, the log says why, connected ones train on."""
    token = port.token()
    port.client(token)
    port.nodes(1)
    content = port.store.path.read_bytes()
    port.store.path.write_bytes(b"broken" * 100)
    assert port.client(token).refusal() == "UNAVAILABLE: tokens cannot be checked now"
    wait_until(lambda: "connected clients stay" in caplog.text)
    assert port.train()[0].has_content()
    assert port.refused == 0
    port.store.path.write_bytes(content)
    port.client(token)
    assert port.nodes(2)


# --- who must go ---------------------------------------------------------------------------------


def test_an_idle_client_is_gone_within_a_second_of_its_revocation(port: Port) -> None:
    """Its stream ends with the reason; nobody else's does."""
    other = port.token("hospital-b")
    client = port.client(port.token())
    port.nodes(1)
    port.client(other)
    port.nodes(2)
    begin = time.monotonic()
    port.revoke()
    assert client.refusal() == "UNAUTHENTICATED: token revoked"
    assert time.monotonic() - begin < 1.0
    wait_until(lambda: port.names.gone == [1])
    assert port.nodes(1) == [2]


def test_a_client_in_fit_is_refused_within_a_second(port: Port) -> None:
    """The round goes on without it at once; what it trained is not taken when it comes."""
    client = port.client(port.token(), Script(fit="hang"))
    replies: list[Message] = []
    round_of_one = threading.Thread(target=lambda: replies.extend(port.train(timeout=20)))
    round_of_one.start()
    client.in_fit.wait(10)
    begin = time.monotonic()
    port.revoke()
    round_of_one.join(10)
    assert time.monotonic() - begin < 1.0
    assert replies[0].has_error()
    assert replies[0].error.reason == "token revoked"
    client.release.set()
    assert client.refusal() == "UNAUTHENTICATED: token revoked"
    assert port.client(None).refusal().startswith("UNAUTHENTICATED")
    assert port.grid.expel(lambda _: "again") == []


def test_an_update_that_is_here_already_is_refused_too(port: Port) -> None:
    """Who answered before the revocation does not count while the round still waits for others."""
    slow = port.client(port.token("slow"), Script(fit="hang"))
    port.nodes(1)
    quick = port.client(port.token("quick"))
    replies: list[Message] = []
    round_of_two = threading.Thread(target=lambda: replies.extend(port.train(2, timeout=20)))
    round_of_two.start()
    slow.in_fit.wait(10)
    quick.in_fit.wait(10)
    time.sleep(0.1)  # its answer arrives
    port.revoke("quick")
    assert quick.refusal() == "UNAUTHENTICATED: token revoked"
    slow.release.set()
    round_of_two.join(10)
    assert [reply.has_content() for reply in replies] == [True, False]
    assert replies[1].error.reason == "token revoked"


def test_a_token_that_expires_ends_its_connection(port: Port) -> None:
    """Holding a stream open does not outlive the day."""
    token = port.token(expires_at=datetime.now(UTC) + timedelta(seconds=0.6))
    client = port.client(token)
    assert port.train()[0].has_content()
    assert client.refusal() == "UNAUTHENTICATED: token expired"


def test_a_line_that_leaves_the_file_revokes(tmp_path: Path, files: Files) -> None:
    """The file is read again by itself when it changes, and at once on SIGUSR1."""
    path = tmp_path / "tokens.txt"
    path.write_text("0123456789abcdef one\n")
    with ExitStack() as stack:
        port = Port(tmp_path, files, stack, file=TokenFile(path))
        one = port.client("0123456789abcdef")
        port.nodes(1)
        path.write_text("fedcba9876543210 two\n")
        begin = time.monotonic()
        assert one.refusal() == "UNAUTHENTICATED: token revoked"
        assert time.monotonic() - begin < 1.0
        two = port.client("fedcba9876543210")
        port.nodes(1)
        path.write_text("")
        os.kill(os.getpid(), signal.SIGUSR1)
        assert two.refusal() == "UNAUTHENTICATED: token revoked"
        assert port.names.seen == ["one", "two"]
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_sigusr1_has_a_file_read_that_looks_unchanged(tmp_path: Path, files: Files) -> None:
    """Same size, same time: only who wrote it knows, and says so."""
    path = tmp_path / "tokens.txt"
    path.write_text("0123456789abcdef one\n")
    stamp = path.stat()
    with ExitStack() as stack:
        port = Port(tmp_path, files, stack, file=TokenFile(path))
        one = port.client("0123456789abcdef")
        port.nodes(1)
        path.write_text("fedcba9876543210 two\n")
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert one.refusal() == "UNAUTHENTICATED: token revoked"


def test_expelling_is_for_those_who_were_let_in() -> None:
    """Without a gate nobody has a holder, and nobody can be judged."""
    grid = BidiGrid("127.0.0.1:0")

    def judge(holder: Holder) -> str | None:
        raise AssertionError(holder)

    assert grid.expel(judge) == []


# --- ways in -------------------------------------------------------------------------------------


def test_a_proxy_may_end_tls(tmp_path: Path, files: Files) -> None:
    """An ingress speaks HTTP/2 in plain text to the port; headers arrive, revocation too."""
    with ExitStack() as stack:
        port = Port(tmp_path, files, stack, certificates=None)
        proxy = stack.enter_context(TlsProxy(port.grid.address, files))
        client = port.client(port.token(), address=proxy.address)
        assert port.train()[0].has_content()
        assert (
            port.client(None, address=proxy.address).refusal() == "UNAUTHENTICATED: token missing"
        )
        port.revoke()
        assert client.refusal() == "UNAUTHENTICATED: token revoked"


def test_a_model_of_24_mb_passes(port: Port) -> None:
    """The limits of messages are Flower's, through the interceptor as without it."""
    port.client(port.token())
    (reply,) = port.train(size=6_000_000, timeout=30)
    assert (reply.content.array_records["arrays"]["0"].numpy() == 1).all()


def test_any_stream_of_the_protocol_needs_the_header(port: Port) -> None:
    """Not only our helper: Flower's own stub with the metadata is let in, without it is not."""
    credentials = grpc.ssl_channel_credentials(port.files.ca.read_bytes())
    metadata = (("authorization", f"Bearer {port.token()}"),)
    leave = threading.Event()
    with grpc.secure_channel(port.grid.address, credentials) as channel:
        stub = FlowerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.Join(iter([])))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # Kept: a call that nobody holds is cancelled when it is collected.
        stream = stub.Join(iter(leave.wait, True), metadata=metadata)
        assert port.nodes(1) == [1]
        assert stream.is_active()
        leave.set()
