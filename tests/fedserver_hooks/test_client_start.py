"""Our `start_client`: what it sends, when it tries again, what it tells about its end."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.client import NumPyClient

import fedserver_hooks.client
from fedserver.transport import BidiGrid, Holder, Refused, Unavailable, prepare_flower_process
from fedserver_hooks.client_start import InsecureToken, _connection_module, start_client
from fedserver_hooks.credentials import (
    BearerToken,
    CredentialsError,
    check_secrecy,
    is_loopback,
    read_credentials,
)
from fedserver_hooks.failing import safe_text
from tests.fedserver.clients import ClientThread, Script, wait_until
from tests.fedserver.helper_clients import GRPC_RACE, HelperThread
from tests.fedserver.pki import Files, make_files

prepare_flower_process()
pytestmark = pytest.mark.filterwarnings(GRPC_RACE)

TOKEN = "flc_" + "t" * 43


class Listening:
    """A gate that notes what clients show and lets everybody in, or refuses as it is told."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str | bytes]] = []
        self.refuse: list[Exception] = []

    def admit(self, metadata: Any, peer: str) -> Holder:
        """Noted."""
        self.shown.append({key: value for key, value in metadata if "authorization" in key})
        if self.refuse:
            raise self.refuse.pop(0)
        return Holder(f"client {len(self.shown)}", b"")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates for all tests here."""
    return make_files(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here is gone after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def gate() -> Listening:
    """What the server sees of credentials."""
    return Listening()


def serve(
    stack: ExitStack, gate: Listening, files: Files | None = None, address: str = "127.0.0.1:0"
) -> BidiGrid:
    """A server on a free port."""
    grid = BidiGrid(address, gate=gate, certificates=None if files is None else files.texts)
    grid.start()
    stack.callback(grid.stop, 0.1)
    return grid


def train(grid: BidiGrid, count: int = 1, kind: str = "train") -> list[Message]:
    """One phase with so many clients."""
    grid.require(count, 10)
    arrays = ArrayRecord([np.zeros(6, np.float32)])
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    asked = [Message(content, node, kind) for node in grid.get_node_ids()]
    return grid.send_and_receive(asked, timeout=10)


class Plugin(grpc.AuthMetadataPlugin):  # type: ignore[misc]  # grpc is untyped
    """What ai4flwr's plugin is: callable, and of late with ``call_credentials()``."""

    def __init__(self, header: str) -> None:
        self._header = header
        self.contexts: list[Any] = []

    def __call__(self, context: Any, callback: Any) -> None:
        """gRPC's protocol; answered from another thread, as it may be."""
        self.contexts.append(context)
        metadata = ((self._header, f"Bearer {TOKEN}"),)
        threading.Timer(0.05, callback, (metadata, None)).start()

    def call_credentials(self) -> Any:
        """For Flower's fork."""
        return grpc.metadata_call_credentials(self)


# --- credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("credentials", "header"),
    [
        (lambda: TOKEN, "authorization"),
        (lambda: BearerToken(f" {TOKEN}\n"), "authorization"),
        (lambda: BearerToken(TOKEN, header="x-authorization"), "x-authorization"),
        (lambda: Plugin("authorization"), "authorization"),
        (lambda: Plugin("x-authorization"), "x-authorization"),
        (lambda: Plugin("x-authorization").call_credentials(), "x-authorization"),
    ],
    ids=["text", "token", "token with x", "plugin 0.2", "plugin", "call credentials"],
)
def test_every_kind_of_credentials_arrives(
    stack: ExitStack,
    gate: Listening,
    files: Files,
    credentials: Callable[[], Any],
    header: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Over TLS each becomes its one header, and the token is in no log."""
    grid = serve(stack, gate, files)
    with caplog.at_level(logging.DEBUG):
        client = stack.enter_context(
            HelperThread(
                grid.address, root_certificates=str(files.ca), call_credentials=credentials()
            )
        )
        assert train(grid)[0].has_content()
        grid.disconnect_all(5.0)
        assert client.wait() is None
    assert gate.shown == [{header: f"Bearer {TOKEN}"}]
    assert TOKEN not in caplog.text


def test_clients_of_one_process_have_their_own_tokens(stack: ExitStack, gate: Listening) -> None:
    """Ten at once with ten tokens, and one of Flower's own beside them, which has none."""
    grid = serve(stack, gate)
    tokens = [f"flc_{number:043}" for number in range(10)]
    for token in tokens:
        stack.enter_context(HelperThread(grid.address, call_credentials=token))
    stack.enter_context(ClientThread(grid.address))
    assert all(reply.has_content() for reply in train(grid, 11))
    shown = [str(headers.get("authorization")) for headers in gate.shown]
    assert sorted(shown) == sorted([*(f"Bearer {token}" for token in tokens), "None"])


@pytest.mark.parametrize("token", ["", "a b", "Bearer x", "tök", "flt_0123456789"])
def test_what_is_no_token_is_refused_without_repeating_it(token: str) -> None:
    """Nor is it in the text of one that is."""
    with pytest.raises(ValueError) as refused:
        BearerToken(token)
    assert not token or token not in str(refused.value)
    assert TOKEN not in f"{BearerToken(TOKEN)!r} {read_credentials(TOKEN)!r}"


def test_what_is_no_credential_is_named_by_its_type() -> None:
    """Before anything is sent."""
    with pytest.raises(TypeError, match="call_credentials is a int"):
        start_client(server_address="127.0.0.1:1", client=object(), call_credentials=3)


def test_a_plugin_that_fails_ends_the_start(stack: ExitStack, gate: Listening) -> None:
    """Its own error is the cause, and nothing was sent without the token."""

    def broken(_: object, callback: Any) -> None:
        callback((), RuntimeError("no vault"))

    grid = serve(stack, gate)
    client = stack.enter_context(HelperThread(grid.address, call_credentials=broken))
    error = client.wait()
    assert isinstance(error, CredentialsError)
    assert str(error.__cause__) == "no vault"
    assert gate.shown == []


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:5000", True),
        ("localhost:5000", True),
        ("[::1]:5000", True),
        ("unix:/run/fl", True),
        ("10.0.0.1:5000", False),
        ("fl.example.org:443", False),
        ("localhost.example.org:443", False),
    ],
)
def test_a_token_goes_to_other_machines_over_tls_only(address: str, loopback: bool) -> None:
    """Unless one says that the network between is one's own."""
    credentials = read_credentials(TOKEN)
    assert credentials is not None
    assert is_loopback(address) == loopback
    if not loopback:
        with pytest.raises(InsecureToken, match="allow_plaintext_token=True"):
            start_client(server_address=address, client=object(), call_credentials=TOKEN)
    check_secrecy(credentials, address, allow_plaintext=True)


def test_opaque_credentials_need_tls_in_any_case(gate: Listening) -> None:
    """gRPC would refuse them later, with a sentence that helps nobody."""
    with pytest.raises(InsecureToken, match="over TLS only"):
        start_client(
            server_address="127.0.0.1:1",
            client=object(),
            call_credentials=Plugin("authorization").call_credentials(),
            allow_plaintext_token=True,
        )


def test_a_wrong_authority_is_not_tried_again(
    stack: ExitStack, gate: Listening, files: Files, tmp_path: Path
) -> None:
    """A certificate does not become good by waiting."""
    grid = serve(stack, gate, files)
    other = make_files(tmp_path / "other")
    client = HelperThread(
        grid.address,
        root_certificates=other.ca.read_bytes(),
        call_credentials=TOKEN,
        max_wait_time=60,
    )
    assert "SSL_ERROR_SSL" in client.refusal()
    assert gate.shown == []


# --- patience ------------------------------------------------------------------------------------


def free_address() -> str:
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_server_that_comes_later_is_waited_for(stack: ExitStack, gate: Listening) -> None:
    """The client was first; stock Flower would have given up."""
    address = free_address()
    client = stack.enter_context(HelperThread(address, max_wait_time=20))
    time.sleep(0.3)
    grid = serve(stack, gate, address=address)
    assert train(grid)[0].has_content()
    grid.disconnect_all(5.0)
    assert client.wait() is None


def test_a_server_that_does_not_come_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After ``max_wait_time``, or after ``max_retries``; the log says what is being waited for."""
    begin = time.monotonic()
    assert HelperThread(free_address(), max_wait_time=0.7).refusal().startswith("UNAVAILABLE")
    assert 0.7 <= time.monotonic() - begin < 5
    assert "the server is not there" in caplog.text
    caplog.clear()
    client = HelperThread(free_address(), max_wait_time=None, max_retries=1)
    assert client.refusal().startswith("UNAVAILABLE")
    assert caplog.text.count("the server is not there") == 1


def test_a_server_that_restarts_is_found_again(stack: ExitStack, gate: Listening) -> None:
    """The connection broke after a round: the time it may take begins anew."""
    address = free_address()
    first = BidiGrid(address, gate=gate)
    first.start()
    client = stack.enter_context(HelperThread(address, max_wait_time=20))
    assert train(first)[0].has_content()
    first._server._server.stop(0).wait()  # type: ignore[union-attr]  # as if it had been killed
    second = serve(stack, gate, address=address)
    assert train(second)[0].has_content()
    second.disconnect_all(5.0)
    assert client.wait() is None
    assert len(gate.shown) == 2


@pytest.mark.parametrize("end", ["refused", "over", "stopped"])
def test_an_end_is_an_end(stack: ExitStack, gate: Listening, end: str) -> None:
    """UNAUTHENTICATED is never tried again, and a server that has ended on purpose is not waited for."""
    grid = serve(stack, gate)
    if end == "refused":
        gate.refuse.append(Refused("token unknown"))
    if end == "over":
        grid.disconnect_all(0.0)
    client = stack.enter_context(HelperThread(grid.address, max_wait_time=60))
    if end == "stopped":
        grid.require(1, 10)
        grid.get_node_ids()
        grid.stop(0.2)
    assert (
        client.refusal()
        == {
            "refused": "UNAUTHENTICATED: token unknown",
            "over": "UNAVAILABLE: the training is over",
            "stopped": "UNAVAILABLE: the server has stopped",
        }[end]
    )
    assert len(gate.shown) == 1


def test_a_gate_that_cannot_say_is_asked_again(stack: ExitStack, gate: Listening) -> None:
    """That is UNAVAILABLE, not a refusal."""
    gate.refuse.append(Unavailable("tokens cannot be checked now"))
    grid = serve(stack, gate)
    stack.enter_context(HelperThread(grid.address, max_wait_time=20))
    assert train(grid)[0].has_content()
    assert len(gate.shown) == 2


# --- failing -------------------------------------------------------------------------------------


def test_a_failing_client_says_why_and_raises(stack: ExitStack, gate: Listening) -> None:
    """The server has the reason, the process its exception, soon; the other one is not touched."""
    grid = serve(stack, gate)
    client = stack.enter_context(HelperThread(grid.address, Script(fit="raise"), max_wait_time=60))
    grid.require(1, 10)
    grid.get_node_ids()
    stack.enter_context(HelperThread(grid.address))
    begin = time.monotonic()
    failed, good = train(grid, 2)
    assert failed.error.reason == "the client raised RuntimeError: told to raise"
    assert good.has_content()
    error = client.wait()
    assert isinstance(error, RuntimeError)
    assert str(error) == "told to raise"
    assert time.monotonic() - begin < 3.0
    grid.require(1, 10)
    wait_until(lambda: grid.get_node_ids() == [2])


def test_a_failing_client_can_keep_its_reason(stack: ExitStack, gate: Listening) -> None:
    """Then it is as with Flower itself: a connection that broke."""
    grid = serve(stack, gate)
    stack.enter_context(HelperThread(grid.address, Script(fit="raise"), report_failures=False))
    (failed,) = train(grid)
    assert failed.error.reason == "the connection closed before the client answered"


class Numbers(NumPyClient):
    """Adds one; returns a metric that Flower cannot send."""

    def __init__(self, metric: object = 0.5) -> None:
        self._metric = metric

    def fit(self, parameters: Any, config: Any) -> Any:
        """One step."""
        return [layer + 1 for layer in parameters], 3, {"accuracy": self._metric}


def test_a_numpy_client_needs_no_conversion(stack: ExitStack, gate: Listening) -> None:
    """And what it lacks is lacking, as with Flower: no reason to end."""
    grid = serve(stack, gate)
    stack.enter_context(HelperThread(grid.address, client=Numbers()))
    assert train(grid)[0].has_content()
    assert "EVALUATE_NOT_IMPLEMENTED" in str(train(grid, kind="evaluate")[0].error.reason)
    assert train(grid)[0].has_content()


def test_a_metric_that_cannot_be_sent_is_a_reason_too(stack: ExitStack, gate: Listening) -> None:
    """The commonest mistake of all: a NumPy number that is no float."""
    grid = serve(stack, gate)
    client = stack.enter_context(HelperThread(grid.address, client=Numbers(np.float32(1))))
    assert train(grid)[0].error.reason == (
        "the client raised TypeError: metric accuracy is a float32: write float(…), int(…) or str(…)"
    )
    assert isinstance(client.wait(), TypeError)


def test_a_client_that_cannot_be_made_is_a_reason_too(stack: ExitStack, gate: Listening) -> None:
    """``client_fn`` raises at the first message; data that are not there often show here."""

    def client_fn(_: object) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "/data/patients.csv")

    grid = serve(stack, gate)
    client = stack.enter_context(HelperThread(grid.address, client=None, client_fn=client_fn))
    assert train(grid)[0].error.reason == (
        "the client raised FileNotFoundError: [Errno 2] No such file or directory: …"
    )
    assert isinstance(client.wait(), FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("could not convert 'Jane Doe' to float"), "ValueError: could not convert … to"),
        (ValueError('a "b" c'), "ValueError: a … c"),
        (RuntimeError("two\nlines\x07"), "RuntimeError: two lines"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError(f"sent {TOKEN}"), "RuntimeError: sent …"),
        (RuntimeError("x" * 500), "RuntimeError: xxx"),
    ],
)
def test_a_reason_shows_no_data_and_no_token(error: Exception, text: str) -> None:
    """One line of at most 200 characters, without what stands in quotation marks."""
    said = safe_text(error, {TOKEN})
    assert said.startswith(f"raised {text}")
    assert said.isprintable()
    assert len(said) <= 200


# --- Flower --------------------------------------------------------------------------------------


def test_flowers_function_is_replaced_once(stack: ExitStack, gate: Listening) -> None:
    """However many clients were started: one wrapper around the original."""
    grid = serve(stack, gate)
    for _ in range(2):
        stack.enter_context(HelperThread(grid.address))
    train(grid, 2)
    create_channel = _connection_module().create_channel
    original = create_channel.__closure__[0].cell_contents
    assert original is import_module("flwr.supercore.grpc").create_channel


def test_the_names_are_with_the_clients_other_ones() -> None:
    """``from fedserver_hooks.client import start_client``, without Flower until then."""
    assert fedserver_hooks.client.start_client is start_client
    assert fedserver_hooks.client.BearerToken is BearerToken
    with pytest.raises(AttributeError):
        fedserver_hooks.client.no_such_name  # noqa: B018


def test_one_client_is_needed() -> None:
    """Either of the two, as with Flower."""
    cases: list[dict[str, Any]] = [{}, {"client": object(), "client_fn": lambda _: None}]
    for both in cases:
        with pytest.raises(ValueError, match="either client or client_fn"):
            start_client(server_address="127.0.0.1:1", **both)
