"""The grid over real sockets, with Flower's own clients on the other side."""

from __future__ import annotations

import inspect
import logging
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.transport_pb2 import ClientMessage, Code, Parameters, Scalar, ServerMessage, Status
from flwr.supercore.logger import FLOWER_LOGGER, console_handler, warn_deprecated_feature
from hypothesis import given
from hypothesis import strategies as st

from fedserver.transport import (
    AddressError,
    BidiGrid,
    NoInitialModel,
    NullListener,
    RoundGrid,
    Stopped,
    SuperLinkGrid,
    TooFewClients,
    check_address,
    prepare_flower_process,
)
from fedserver.transport.messages import Refusal, decode, encode
from fedserver.transport.server import Peer
from telemetry.writer import Failures
from tests.fedserver.clients import ClientProcess, ClientThread, RawClient, Script, wait_until

prepare_flower_process()
UNKNOWN_CODE: Any = 77
"""A status that this version of Flower does not know."""


class Recording(NullListener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.late_replies: queue.SimpleQueue[tuple[Message, str, int]] = queue.SimpleQueue()
        self.answered = threading.Event()
        self.first_connected = math.inf

    def connected(self, node: int, name: str, loopback: bool) -> None:
        """Kept."""
        self.first_connected = min(self.first_connected, time.monotonic())
        self.calls.append(("connected", node, name, loopback))

    def disconnected(self, node: int) -> None:
        """Kept."""
        self.calls.append(("disconnected", node))

    def sent(self, node: int, phase: str, at: float, size_bytes: int | None) -> None:
        """Kept."""
        self.calls.append(("sent", node, phase, at, size_bytes))

    def replied(self, node: int, phase: str, at: float, size_bytes: int | None) -> None:
        """Kept."""
        self.calls.append(("replied", node, phase, at, size_bytes))
        self.answered.set()

    def waiting(self, connected: int, required: int) -> None:
        """Kept."""
        self.calls.append(("waiting", connected, required))

    def failed(self, node: int, phase: str, reason: str) -> None:
        """Kept."""
        self.calls.append(("failed", node, phase, reason))

    def overdue(self, node: int, size_bytes: int) -> None:
        """Kept."""
        self.calls.append(("overdue", node, size_bytes))

    def late(self, reply: Message, phase: str, server_round: int) -> None:
        """Kept."""
        self.late_replies.put((reply, phase, server_round))

    def reported(self, node: int, phase: str, report: ConfigRecord, server_round: int) -> None:
        """Kept."""
        self.calls.append(("reported", node, phase, dict(report), server_round))
        self.answered.set()

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        """The calls of one kind, without their name."""
        return [call[1:] for call in self.calls if call[0] == kind]


@pytest.fixture
def listener() -> Recording:
    """What the grid is told to."""
    return Recording()


@pytest.fixture
def clients() -> Iterator[ExitStack]:
    """Clients that were entered here are gone after the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def grid(listener: Recording, clients: ExitStack) -> Iterator[BidiGrid]:
    """A grid on a free port, with a clock that stands still."""
    grid = BidiGrid("127.0.0.1:0", listener=listener, clock=lambda: 1_000_000.0)
    grid.start()
    yield grid
    clients.close()
    grid.disconnect_all(0.0)
    grid.stop(0.2)


def thread(
    clients: ExitStack, grid: BidiGrid, script: Script | None = None, number: int = 1
) -> ClientThread:
    """A client that is the ``number``-th to connect."""
    client = clients.enter_context(ClientThread(grid.address, script))
    grid.require(number, 10)
    grid.get_node_ids()
    return client


def messages(
    grid: BidiGrid,
    kind: str = "train",
    number: int = 1,
    arrays: ArrayRecord | None = None,
    nodes: list[int] | None = None,
) -> list[Message]:
    """A message to every free node (or ``nodes``), sharing its content as strategies do."""
    model = arrays or ArrayRecord([np.zeros((3, 2), np.float32)])
    content = RecordDict({"arrays": model, "config": ConfigRecord({"server-round": number})})
    return [Message(content, node, kind) for node in nodes or grid.get_node_ids()]


def after(event: threading.Event, action: Callable[[], None]) -> threading.Thread:
    """Do it in another thread, once the event has come."""

    def wait() -> None:
        event.wait(10)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def reason(reply: Message) -> str:
    """Why a reply is an error."""
    assert reply.has_error()
    return reply.error.reason or ""


def layer(reply: Message, name: str = "0") -> Any:
    """One layer of a reply's model."""
    return reply.content.array_records["arrays"][name].numpy()


# --- ordinary rounds -----------------------------------------------------------------------------


def test_real_clients_train_evaluate_and_exit_zero(
    grid: BidiGrid, listener: Recording, clients: ExitStack
) -> None:
    """Clients answer train and evaluate messages, and a process exits 0 when it is dismissed."""
    script = Script(
        metrics={"accuracy": 0.5, "emissions": 1e-6}, echo=("server_round", "server-round")
    )
    process = clients.enter_context(ClientProcess(grid.address, script))
    other = clients.enter_context(ClientThread(grid.address, script))
    grid.require(2, 60)
    replies = grid.send_and_receive(messages(grid, number=7), timeout=10)
    evaluations = grid.send_and_receive(messages(grid, "evaluate"), timeout=10)
    grid.disconnect_all(5.0)

    assert process.wait() == 0
    assert other.wait() is None
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2]
    for reply in replies:
        assert (layer(reply) == 1).all()
        assert dict(reply.content["metrics"]) == {
            "num-examples": 10,
            "accuracy": 0.5,
            "server_round-echo": 7,
            "server-round-echo": 7,
        }
        assert dict(reply.content["emissions"]) == {"emissions_kg": 1e-6}
    assert [dict(reply.content["metrics"]) for reply in evaluations] == [
        {"num-examples": 10, "accuracy": 0.5, "loss": 0.25}
    ] * 2
    names = [(node, name, loopback) for node, name, loopback in listener.of("connected")]
    assert names == [(1, "127.0.0.1 #1", True), (2, "127.0.0.1 #2", True)]
    assert sorted(listener.of("disconnected")) == [(1,), (2,)]


def test_replies_come_in_the_order_of_the_messages(
    grid: BidiGrid, listener: Recording, clients: ExitStack
) -> None:
    """Whoever answers first, replies are ordered as the messages are: sums of floats depend on it."""
    slow = thread(clients, grid, Script(fit="hang", add=1))
    thread(clients, grid, Script(add=2), number=2)
    freed = after(listener.answered, slow.release.set)
    replies = grid.send_and_receive(messages(grid, nodes=[1, 2]), timeout=10)
    freed.join()

    assert [float(layer(reply)[0, 0]) for reply in replies] == [1, 2]
    assert [node for node, *_ in listener.of("replied")] == [2, 1]


def test_layers_keep_the_names_that_were_sent(grid: BidiGrid, clients: ExitStack) -> None:
    """A `FitRes` has no names; the reply has those of the message, in its order."""
    thread(clients, grid)
    named = {"w.10": np.zeros(2, np.float32), "w.2": np.ones((), np.float32)}
    model = ArrayRecord({name: Array(values) for name, values in named.items()})
    (reply,) = grid.send_and_receive(messages(grid, arrays=model), timeout=10)

    assert list(reply.content["arrays"]) == ["w.10", "w.2"]
    assert layer(reply, "w.2") == 2


def test_sizes_and_times_are_those_of_the_wire(
    grid: BidiGrid, listener: Recording, clients: ExitStack
) -> None:
    """The listener is told the serialized sizes of both messages and the grid's own time."""
    raw = RawClient(grid.address)
    clients.callback(raw.close)
    grid.require(1, 10)
    (message,) = messages(grid)
    answer = ClientMessage(fit_res=ClientMessage.FitRes(num_examples=3))
    raw.answer(answer)
    grid.send_and_receive([message], timeout=10)

    asked: ServerMessage = next(raw.asked)
    assert listener.of("sent") == [(1, "train", 1_000_000.0, asked.ByteSize())]
    assert listener.of("replied") == [(1, "train", 1_000_000.0, answer.ByteSize())]


def test_twenty_clients_at_once(grid: BidiGrid, clients: ExitStack) -> None:
    """Twenty clients connect, answer and leave together."""
    threads = [clients.enter_context(ClientThread(grid.address)) for _ in range(20)]
    grid.require(20, 20)
    replies = grid.send_and_receive(messages(grid), timeout=10)
    grid.disconnect_all(5.0)

    assert [reply.metadata.src_node_id for reply in replies] == list(range(1, 21))
    assert all((layer(reply) == 1).all() for reply in replies)
    assert [client.wait() for client in threads] == [None] * 20


def test_a_large_model_passes(grid: BidiGrid, listener: Recording, clients: ExitStack) -> None:
    """24 MB travel both ways: gRPC's own limit would be 4 MB."""
    thread(clients, grid)
    model = ArrayRecord([np.zeros(6_000_000, np.float32)])
    (reply,) = grid.send_and_receive(messages(grid, arrays=model), timeout=20)

    assert (layer(reply) == 1).all()
    assert listener.of("sent")[0][3] > 24_000_000
    assert listener.of("replied")[0][3] > 24_000_000


def test_a_listener_that_raises_costs_nobody_anything(
    clients: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on, clients stay connected; each failure is counted, the first one logged."""

    class Broken(NullListener):
        def __getattribute__(self, name: str) -> Any:
            def fail(*_: object) -> None:
                raise RuntimeError(f"{name} is broken")

            return fail

    failures = Failures()
    grid = BidiGrid("127.0.0.1:0", listener=Broken(), failures=failures)
    grid.start()
    thread(clients, grid)
    with caplog.at_level(logging.WARNING):
        (reply,) = grid.send_and_receive(messages(grid), timeout=10)
    grid.disconnect_all(1.0)
    grid.stop(0.2)

    assert reply.has_content()
    assert failures.counts == {"transport": 4}, "connected, sent, replied, disconnected"
    (warning,) = [r for r in caplog.records if "a listener failed" in r.getMessage()]
    assert warning.exc_info is not None


# --- clients that fail ---------------------------------------------------------------------------


def test_a_hung_client_is_skipped_until_it_answers(
    grid: BidiGrid, listener: Recording, clients: ExitStack
) -> None:
    """Error at the deadline, left out while busy, its late reply is told, then it takes part again."""
    hung = thread(clients, grid, Script(fit="hang", fit_rounds=(1,), metrics={"emissions": 1e-6}))
    thread(clients, grid, number=2)
    begin = time.monotonic()
    replies = grid.send_and_receive(messages(grid, number=1), timeout=0.5)
    took_s = time.monotonic() - begin
    grid.require(1, 10)
    skipped = grid.get_node_ids()
    (busy,) = grid.send_and_receive(messages(grid, nodes=[1]), timeout=5)
    hung.release.set()
    late, phase, number = listener.late_replies.get(timeout=10)
    ((overdue, size_bytes),) = listener.of("overdue")
    grid.require(2, 10)
    again = grid.send_and_receive(messages(grid, number=2), timeout=10)

    assert 0.5 <= took_s < 1.5
    assert (overdue, size_bytes > 50) == (1, True)
    assert reason(replies[0]) == "no answer within 0.5 s"
    assert replies[1].has_content()
    assert skipped == [2]
    assert "still busy" in reason(busy)
    assert (phase, number, late.metadata.src_node_id) == ("train", 1, 1)
    assert dict(late.content["emissions"]) == {"emissions_kg": 1e-6}
    assert dict(late.content["metrics"]) == {"num-examples": 10}
    assert [reply.has_content() for reply in again] == [True, True]
    assert [node for node, *_ in listener.of("replied")] == [2, 1, 2] or [
        node for node, *_ in listener.of("replied")
    ] == [2, 2, 1]


def test_a_client_that_dies_in_fit_is_an_error_at_once(
    grid: BidiGrid, listener: Recording, clients: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    """The others' replies count, the dead node is gone, and gRPC writes no traceback."""
    dying = clients.enter_context(ClientProcess(grid.address, Script(fit="die")))
    grid.require(1, 60)
    grid.get_node_ids()
    thread(clients, grid, number=2)
    with caplog.at_level(logging.INFO):
        dead, alive = grid.send_and_receive(messages(grid), timeout=20)
        grid.require(1, 10)
        left = grid.get_node_ids()
        grid.disconnect_all(1.0)
        grid.stop(0.2)

    assert dying.wait() == 3
    assert reason(dead) == "the connection closed before the client answered"
    assert alive.has_content()
    assert left == [2]
    assert (1,) in listener.of("disconnected")
    assert not [record for record in caplog.records if record.name.startswith("grpc")]
    assert "Traceback" not in caplog.text


def test_a_client_that_says_it_failed_is_an_error_with_its_words(
    grid: BidiGrid, clients: ExitStack
) -> None:
    """A status other than OK comes as an ordinary answer; its text is one line of ours."""
    thread(clients, grid, Script(fit="status"))
    (reply,) = grid.send_and_receive(messages(grid), timeout=10)

    assert reason(reply) == "the client's status is FIT_NOT_IMPLEMENTED: told to fail"


@pytest.mark.parametrize("in_time", [True, False])
def test_the_report_of_a_client_that_says_it_failed_is_told(
    grid: BidiGrid, listener: Recording, clients: ExitStack, in_time: bool
) -> None:
    """Its energy was spent; whatever else it answered is passed over."""
    raw = RawClient(grid.address)
    clients.callback(raw.close)
    grid.require(1, 10)
    asked = messages(grid, number=3)
    metrics = {"emissions": Scalar(double=1e-6), "accuracy": Scalar(double=0.5)}
    status = Status(code=Code.FIT_NOT_IMPLEMENTED)
    answer = ClientMessage(fit_res=ClientMessage.FitRes(status=status, metrics=metrics))
    if in_time:
        raw.answer(answer)
    (reply,) = grid.send_and_receive(asked, timeout=10 if in_time else 0.1)
    if not in_time:
        raw.answer(answer)
        grid.require(1, 10)
        assert grid.get_node_ids() == [1]

    assert reply.has_error()
    assert listener.of("reported") == [(1, "train", {"emissions_kg": 1e-6}, 3)]
    assert listener.late_replies.empty()


def test_a_client_without_evaluate_is_an_error_reply_and_stays(
    grid: BidiGrid, clients: ExitStack
) -> None:
    """It is asked, says that it cannot, and goes on training."""
    thread(clients, grid, Script(evaluates=False))
    (evaluation,) = grid.send_and_receive(messages(grid, "evaluate"), timeout=10)
    (update,) = grid.send_and_receive(messages(grid), timeout=10)

    assert "EVALUATE_NOT_IMPLEMENTED" in reason(evaluation)
    assert update.has_content()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (ClientMessage(), "answered nothing instead of fit_res"),
        (
            ClientMessage(evaluate_res=ClientMessage.EvaluateRes()),
            "answered evaluate_res instead of fit_res",
        ),
        (
            ClientMessage(
                fit_res=ClientMessage.FitRes(status=Status(code=UNKNOWN_CODE, message="x\x07y"))
            ),
            "the client's status is code 77: x y",
        ),
    ],
    ids=["nothing", "the wrong kind", "a code from the future"],
)
def test_a_client_that_talks_nonsense_is_an_error_and_stays(
    grid: BidiGrid, clients: ExitStack, answer: ClientMessage, expected: str
) -> None:
    """Whatever a client answers becomes a reply with a reason, and its node is free again."""
    raw = RawClient(grid.address)
    clients.callback(raw.close)
    grid.require(1, 10)
    asked = messages(grid)
    raw.answer(answer)
    (reply,) = grid.send_and_receive(asked, timeout=10)

    assert reason(reply) == expected
    assert grid.get_node_ids() == [1]


def test_a_node_that_nobody_knows_is_an_error(grid: BidiGrid) -> None:
    """A message to a client that is not there is answered at once."""
    (reply,) = grid.send_and_receive(messages(grid, nodes=[99]), timeout=10)
    assert reason(reply) == "the client is not connected"


# --- waiting for clients -------------------------------------------------------------------------


def test_waiting_ends_at_the_limit(grid: BidiGrid) -> None:
    """Too few clients is an error that says how many of how many, at the time that was set."""
    grid.require(2, 0.2)
    begin = time.monotonic()
    with pytest.raises(TooFewClients, match=r"0 of 2 after 0\.2 s"):
        grid.get_node_ids()
    assert 0.2 <= time.monotonic() - begin < 1.0


def test_who_is_waited_for_is_said_now_and_then() -> None:
    """How many of how many are connected, and the limit still holds to the moment."""
    listener = Recording()
    grid = BidiGrid("127.0.0.1:0", listener=listener, say_waiting_s=0.1)
    grid.start()
    try:
        with ClientThread(grid.address):
            grid.require(1, 10)
            grid.get_node_ids()
            grid.require(3, 0.35)
            with pytest.raises(TooFewClients, match=r"1 of 3 after 0\.[3-5]"):
                grid.get_node_ids()
        assert [call for call in listener.of("waiting") if call[1] == 3] == [(1, 3)] * 3
    finally:
        grid.stop(0.2)


@pytest.mark.parametrize("kind", [BidiGrid, SuperLinkGrid])
def test_waiting_is_said_every_thirty_seconds(kind: type[RoundGrid]) -> None:
    """Unless a test wants it sooner, whichever way clients come."""
    assert inspect.signature(kind).parameters["say_waiting_s"].default == 30.0


def test_a_client_that_fails_is_told_with_the_reason() -> None:
    """In the words of the reply, once for each message that has no usable answer."""
    listener = Recording()
    grid = BidiGrid("127.0.0.1:0", listener=listener)
    grid.start()
    try:
        with ClientThread(grid.address, Script(fit="status")):
            grid.require(1, 10)
            nodes = grid.get_node_ids()
            grid.send_and_receive(messages(grid, nodes=nodes), timeout=10)
        ((node, phase, why),) = listener.of("failed")
        assert (node, phase) == (1, "train")
        assert "told to fail" in why
    finally:
        grid.stop(0.2)


def test_waiting_ends_with_the_client_that_was_missing(
    grid: BidiGrid, listener: Recording, clients: ExitStack
) -> None:
    """A client that connects is noticed at once, not at the next second."""
    grid.require(1, None)
    found: queue.SimpleQueue[tuple[list[int], float]] = queue.SimpleQueue()
    waiting = threading.Thread(
        target=lambda: found.put((grid.get_node_ids(), time.monotonic())), daemon=True
    )
    waiting.start()
    clients.enter_context(ClientThread(grid.address))
    nodes, noticed = found.get(timeout=10)

    assert nodes == [1]
    assert noticed - listener.first_connected < 0.5


def test_the_list_does_not_shrink_within_a_phase(grid: BidiGrid, listener: Recording) -> None:
    """A strategy counts, then samples: a client that left in between fails, nobody waits for it."""
    raw = RawClient(grid.address)
    grid.require(1, 10)
    before = grid.get_node_ids()
    raw.close()
    wait_until(lambda: listener.of("disconnected"))
    between = grid.get_node_ids()
    (reply,) = grid.send_and_receive(messages(grid, nodes=between), timeout=10)
    grid.require(0, 10)

    assert before == between == [1]
    assert "not connected" in reason(reply)
    assert grid.get_node_ids() == []


def test_a_strategy_that_wants_more_than_is_required_does_not_wait_without_end(
    grid: BidiGrid, clients: ExitStack
) -> None:
    """Flower's `sample_nodes` asks again and again; after the limit that is too few clients."""
    thread(clients, grid)
    grid.require(1, 0)
    assert [grid.get_node_ids() for _ in range(2)] == [[1], [1]]
    with pytest.raises(TooFewClients, match="1 of 2"):
        grid.get_node_ids()


def test_stop_ends_every_wait(grid: BidiGrid) -> None:
    """A wait without limit ends with `Stopped`, soon after it was asked for."""
    grid.require(1, None)
    threading.Timer(0.05, grid.request_stop).start()
    begin = time.monotonic()
    with pytest.raises(Stopped):
        grid.get_node_ids()
    assert time.monotonic() - begin < 1.0
    with pytest.raises(Stopped):
        grid.initial_arrays(1.0)


def test_stop_in_the_middle_of_a_round_takes_less_than_two_seconds(
    grid: BidiGrid, clients: ExitStack
) -> None:
    """With a client hung in ``fit`` the round is left, idle clients exit 0, the port is free."""
    hung = thread(clients, grid, Script(fit="hang"))
    idle = clients.enter_context(ClientProcess(grid.address))
    grid.require(2, 60)
    asked = messages(grid)
    after(hung.in_fit, grid.request_stop)
    with pytest.raises(Stopped):
        grid.send_and_receive(asked, timeout=30)
    begin = time.monotonic()
    grid.disconnect_all(0.0)
    grid.stop(0.2)
    took_s = time.monotonic() - begin
    hung.release.set()

    assert took_s < 1.5
    assert idle.wait() == 0
    assert isinstance(hung.wait(), grpc.RpcError)
    check_address(grid.address)


def test_busy_clients_are_dismissed_within_the_grace(grid: BidiGrid, clients: ExitStack) -> None:
    """A client that answers during the grace is told to go, and returns as an idle one does."""
    busy = thread(clients, grid, Script(fit="hang"))
    grid.send_and_receive(messages(grid), timeout=0.05)
    threading.Timer(0.1, busy.release.set).start()
    begin = time.monotonic()
    grid.disconnect_all(10.0)

    assert time.monotonic() - begin < 5.0
    assert busy.wait() is None


def test_who_comes_after_the_end_is_refused(grid: BidiGrid) -> None:
    """A client that connects to a training that is over learns why."""
    grid.disconnect_all(0.0)
    raw = RawClient(grid.address)
    with pytest.raises(grpc.RpcError) as refused:
        next(raw.asked)
    raw.close()
    assert refused.value.details() == "the training is over"


# --- the initial model ---------------------------------------------------------------------------


def test_the_initial_model_comes_from_the_first_client_that_has_one(
    grid: BidiGrid, clients: ExitStack
) -> None:
    """Clients without ``get_parameters`` are passed over."""
    thread(clients, grid, Script(model=None))
    thread(clients, grid, Script(model=((4, 3), (3,))), number=2)
    arrays = grid.initial_arrays(5.0)

    assert [array.numpy().shape for array in arrays.values()] == [(4, 3), (3,)]


def test_without_an_initial_model_the_setting_is_named(grid: BidiGrid, clients: ExitStack) -> None:
    """Once everyone required was asked in vain, the error says what to set."""
    thread(clients, grid, Script(model=None))
    thread(clients, grid, Script(model=None), number=2)
    grid.require(2, 5)
    with pytest.raises(NoInitialModel, match=r"none of 2 clients .* set model\.initial"):
        grid.initial_arrays(5.0)


def test_the_initial_model_is_waited_for_like_clients_are(grid: BidiGrid) -> None:
    """No client at all in time is too few clients, not a missing model."""
    grid.require(1, 0.05)
    with pytest.raises(TooFewClients):
        grid.initial_arrays(5.0)


# --- reading answers -----------------------------------------------------------------------------


def fit_answer(**metrics: Scalar) -> bytes:
    """A `FitRes` with these metrics and one layer."""
    result = ClientMessage.FitRes(
        status=Status(code=Code.OK),
        parameters=Parameters(tensors=[b"x"], tensor_type="numpy.ndarray"),
        num_examples=4,
        metrics=metrics,
    )
    return bytes(ClientMessage(fit_res=result).SerializeToString())


def test_metrics_that_do_not_fit_are_left_out_one_by_one() -> None:
    """Text, truth values and bytes are no metrics; the numbers beside them stay."""
    content = decode(
        "train",
        fit_answer(
            accuracy=Scalar(double=0.5),
            epochs=Scalar(sint64=3),
            note=Scalar(string="x"),
            done=Scalar(bool=True),
            blob=Scalar(bytes=b"x"),
            empty=Scalar(),
            **{"num-examples": Scalar(double=1e9)},
        ),
        ("w",),
    )
    assert isinstance(content, RecordDict)
    assert content["metrics"] == MetricRecord({"num-examples": 4, "accuracy": 0.5, "epochs": 3})


@pytest.mark.parametrize("value", [Scalar(bool=True), Scalar(string="0.5"), Scalar(bytes=b"1")])
def test_a_report_of_the_wrong_type_arrives_as_it_was_sent(value: Scalar) -> None:
    """Whether ``True`` or ``"0.5"`` is a report is not for the transport to say."""
    content = decode("train", fit_answer(emissions=value), ("w",))
    assert isinstance(content, RecordDict)
    sent = getattr(value, value.WhichOneof("scalar") or "")
    assert dict(content["emissions"]) == {"emissions_kg": sent}


@given(st.binary(max_size=200), st.sampled_from(["train", "evaluate"]))
def test_no_bytes_at_all_make_reading_raise(data: bytes, phase: Any) -> None:
    """Whatever a client sends, reading gives records or a reason."""
    answer = decode(phase, data, ("w",))
    assert isinstance(answer, RecordDict) or answer.reason
    if isinstance(answer, Refusal):
        assert answer.reason.isprintable()


@given(
    st.dictionaries(
        st.text(max_size=10),
        st.one_of(
            st.booleans(),
            st.integers(-(2**63), 2**64 - 1),
            st.floats(),
            st.text(max_size=5),
            st.binary(max_size=5),
        ),
        max_size=4,
    )
)
def test_any_metrics_can_be_read(metrics: dict[str, Any]) -> None:
    """Metrics of every type that Flower can send give a MetricRecord with the examples."""
    scalars = {name: _scalar(value) for name, value in metrics.items()}
    content = decode("train", fit_answer(**scalars), ("w",))
    assert isinstance(content, RecordDict)
    assert dict(content["metrics"])["num-examples"] == 4


def _scalar(value: Any) -> Scalar:
    kinds: dict[type, str] = {bool: "bool", float: "double", str: "string", bytes: "bytes"}
    kind = kinds.get(
        type(value), "uint64" if isinstance(value, int) and value >= 2**63 else "sint64"
    )
    return Scalar(**{kind: value})


def test_a_config_value_without_a_type_is_named() -> None:
    """The protocol has no lists: the error says which key."""
    content = RecordDict({"config": ConfigRecord({"steps": [1, 2]})})
    with pytest.raises(TypeError, match="config 'steps'"):
        encode("train", content)


# --- before the port opens -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1", "write host:port"),
        (":5000", "write host:port"),
        ("::1", "write host:port"),
        ("http://127.0.0.1:5000", "without a scheme"),
        ("127.0.0.1:x", "from 0 to 65535"),
        ("127.0.0.1:", "from 0 to 65535"),
        ("127.0.0.1:70000", "from 0 to 65535"),
        ("nobody.invalid:5000", "'nobody.invalid' cannot be resolved"),
        ("192.0.2.1:5000", "192.0.2.1 is not an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_is_explained(address: str, problem: str) -> None:
    """What is wrong with an address is said before anything is started."""
    with pytest.raises(AddressError, match=problem) as refused:
        check_address(address)
    assert refused.value.address == address


def test_a_port_in_use_is_an_error_with_its_number() -> None:
    """Flower would end the process; gRPC would share the port without a word."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        expected = f"port {other.getsockname()[1]} is in use"
        with pytest.raises(AddressError, match=expected):
            check_address(address)
        with pytest.raises(AddressError, match=expected):
            BidiGrid(address).start()
    check_address(address)


def test_two_grids_do_not_share_a_port(grid: BidiGrid) -> None:
    """A second server on the same port is refused."""
    with pytest.raises(AddressError, match="is in use"):
        BidiGrid(grid.address).start()


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "0.0.0.0:0"])
def test_good_addresses_pass(address: str) -> None:
    """Names, open addresses and port 0 can be listened on."""
    check_address(address)


@pytest.mark.parametrize(
    ("peer", "host", "loopback"),
    [
        ("ipv4:127.0.0.1:40000", "127.0.0.1", True),
        ("ipv4:10.1.2.3:40000", "10.1.2.3", False),
        ("ipv6:%5B::1%5D:40000", "::1", True),
        ("ipv6:[::ffff:127.0.0.1]:40000", "::ffff:127.0.0.1", True),
        ("ipv6:%5B2001:db8::1%5D:40000", "2001:db8::1", False),
        ("unix:/run/fl.sock", "unix", True),
    ],
)
def test_peers_are_read_as_grpc_writes_them(peer: str, host: str, loopback: bool) -> None:
    """Host and whether it is this machine, for both protocols and their mixtures."""
    assert (Peer(peer).host, Peer(peer).loopback) == (host, loopback)


def test_flower_logs_each_line_once_and_no_banners(caplog: pytest.LogCaptureFixture) -> None:
    """Its own console handler is gone, and what it says about the protocol's age too."""
    with caplog.at_level(logging.INFO, "flwr"):
        warn_deprecated_feature("start_client()")
        FLOWER_LOGGER.warning("something else")

    assert console_handler not in FLOWER_LOGGER.handlers
    assert caplog.messages == ["something else"]


def test_any_callable_clock_gives_the_times(clients: ExitStack) -> None:
    """Times are the injected clock's, read when the message goes out and when the answer is in."""
    ticks = iter(range(100))
    heard = Recording()
    clock: Callable[[], float] = lambda: float(next(ticks))  # noqa: E731
    grid = BidiGrid("127.0.0.1:0", listener=heard, clock=clock)
    grid.start()
    thread(clients, grid)
    grid.send_and_receive(messages(grid), timeout=10)
    grid.disconnect_all(1.0)
    grid.stop(0.2)

    assert (heard.of("sent")[0][2], heard.of("replied")[0][2]) == (0.0, 1.0)
