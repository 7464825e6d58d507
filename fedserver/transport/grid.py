"""`BidiGrid`: clients of ``start_client`` as the nodes of a Flower grid."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from flwr.app import ArrayRecord, Error, Message, MessageType
from flwr.common.constant import ErrorCode

from fedserver.transport.base import (
    Gate,
    GridListener,
    Holder,
    NoInitialModel,
    NullListener,
    RoundGrid,
    TooFewClients,
    teller,
)
from fedserver.transport.messages import (
    ASK_PARAMETERS,
    GOODBYE,
    Refusal,
    decode,
    decode_parameters,
    encode,
    layer_names,
    server_round,
)
from fedserver.transport.nodes import Node, Nodes, Request, State
from fedserver.transport.server import BidiServer, Certificates, Peer
from telemetry.domain import Phase
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

_PHASES: Final[dict[str, Phase]] = {
    MessageType.TRAIN: "train",
    MessageType.EVALUATE: "evaluate",
}
_PATIENT_CALLS: Final = 2
"""Flower's strategies ask for node ids twice in a phase: to count them and to sample from them."""
SAY_WAITING_S: Final = 30.0
"""How often somebody is told that clients are waited for."""


@dataclass(slots=True)
class _Requirement:
    """How many free nodes `get_node_ids` waits for, and until when."""

    count: int
    end: float | None
    calls: int = 0
    given: tuple[int, ...] = ()

    def asked_again(self) -> int:
        """How many nodes to wait for, in the next call."""
        self.calls += 1
        over = self.end is not None and time.monotonic() >= self.end
        if self.calls > _PATIENT_CALLS and over:
            return len(self.given) + 1  # who goes on asking wants more: the limit holds for it too
        return 0 if self.given else self.count

    def begin_phase(self) -> None:
        """Messages were sent: the next call begins anew."""
        self.calls, self.given = 0, ()


class BidiGrid(RoundGrid):
    """A grid over Flower's gRPC-bidi protocol, for one training.

    ``address`` is ``host:port`` (port 0: any; see `address` once started), ``certificates`` PEM
    texts of authority, certificate and key (None: no TLS), ``gate`` says who may connect (None:
    everybody), ``max_message_mb`` in MiB for either
    direction, ``clock`` in epoch seconds. ``failures`` counts what the ``listener`` raises. One thread trains (`get_node_ids`, `send_and_receive`);
    `request_stop` may come from any other or from a signal handler.
    """

    def __init__(
        self,
        address: str,
        *,
        certificates: Certificates | None = None,
        gate: Gate | None = None,
        max_message_mb: int = 512,
        keepalive_s: float = 30.0,
        listener: GridListener | None = None,
        failures: Failures | None = None,
        clock: Callable[[], float] = time.time,
        say_waiting_s: float = SAY_WAITING_S,
    ) -> None:
        self._listener = listener or NullListener()
        self._tell = teller(failures)
        self._clock = clock
        self._say_waiting_s = say_waiting_s
        self._nodes = Nodes()
        self._requirement = _Requirement(count=0, end=None)
        self._server = BidiServer(
            self._nodes,
            address,
            certificates=certificates,
            gate=gate,
            max_message_mb=max_message_mb,
            keepalive_s=keepalive_s,
            on_join=self._joined,
            on_leave=self._left,
        )

    # --- life ----------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """``host:port``; with the real port once started."""
        return self._server.address

    def start(self) -> None:
        """Open the port for clients. Raises `AddressError`."""
        self._server.start()

    def request_stop(self) -> None:
        """Make every wait raise `Stopped`, within a tenth of a second. Safe in a signal handler."""
        self._nodes.request_stop()

    def disconnect_all(self, grace_s: float) -> None:
        """Tell clients that they are no longer needed: ``start_client`` returns, they exit 0.

        Busy clients cannot be told before they answer; that is waited for up to ``grace_s``. From
        now on no new client is taken.
        """
        self._nodes.dismiss(GOODBYE, grace_s)

    def stop(self, grace_s: float) -> None:
        """Close every connection and the port; clients that are still connected see UNAVAILABLE."""
        self.request_stop()
        self._server.stop(grace_s)

    def expel(self, judge: Callable[[Holder], str | None]) -> list[tuple[Holder, str]]:
        """End the connections of those for whom ``judge`` has a reason; returns who and why.

        They see UNAUTHENTICATED with the reason, in ``fit`` once that ends. What they answered in
        the running phase is refused with it, too. Safe from any thread.
        """
        return self._nodes.expel(judge)

    # --- Flower's interface --------------------------------------------------------------------

    def require(self, count: int, timeout_s: float | None) -> None:
        """From now on `get_node_ids` waits until ``count`` nodes are free; see `RoundGrid`."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        self._requirement = _Requirement(count, end)

    def get_node_ids(self) -> list[int]:
        """The free nodes, sorted, once there are as many as required.

        Raises `TooFewClients` and `Stopped`. Within one phase the list never gets shorter:
        strategies first count and then sample, and would wait without end for a client that left in
        between. Asking that client fails, which is what happened.
        """
        requirement = self._requirement
        free = self._wait_for_free(requirement.asked_again(), requirement.end)
        if len(free) >= len(requirement.given):
            requirement.given = tuple(free)
        return list(requirement.given)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """One reply a message, in the order of the messages (sums of floats depend on it).

        A client that is hung, gone or not well is a reply with an error and a plain reason; there
        is always an end after ``timeout`` seconds. Raises `Stopped`.
        """
        bodies: dict[int, bytes] = {}
        asked = [(message, self._send(message, bodies)) for message in messages]
        self._nodes.settle((request for _, request in asked), timeout)
        self._requirement.begin_phase()
        replies = [
            cast(Message, request.answer)
            if request.state is State.ANSWERED
            else _error(message, _code(request), request.problem)
            for message, request in asked
        ]
        for (message, _), reply in zip(asked, replies, strict=True):
            if reply.has_error():
                node, phase = message.metadata.dst_node_id, _phase_of(message)
                self._tell(self._listener.failed, node, phase, reply.error.reason)
        return replies

    def initial_arrays(self, timeout_s: float) -> ArrayRecord:
        """The model of the first client that has one, asked one after another.

        Each has ``timeout_s`` to answer. Once as many as required (at least one) were asked in vain
        and no further is there: `NoInitialModel`. Also raises `TooFewClients` and `Stopped`.
        """
        asked: list[int] = []
        required = max(1, self._requirement.count)
        while True:
            # A node that was asked may have left; another may still come in its place.
            enough = len(asked) >= required
            free = self._wait_for_free(
                0 if enough else 1, None if enough else self._requirement.end, but=asked
            )
            if not free:
                raise NoInitialModel(len(asked))
            asked.append(free[0])
            model = self._ask_for_model(free[0], timeout_s)
            if isinstance(model, ArrayRecord):
                return model
            logger.info("client %d has no model to begin with: %s", free[0], model)

    # --- inside --------------------------------------------------------------------------------

    def _wait_for_free(
        self, count: int, end: float | None, *, but: Sequence[int] = ()
    ) -> list[int]:
        """`Nodes.wait_for_free`, with a word now and then to whoever listens."""
        begin = time.monotonic()
        while True:
            say_at = time.monotonic() + self._say_waiting_s
            last = end is not None and end <= say_at
            try:
                return self._nodes.wait_for_free(count, end if last else say_at, but=but)
            except TooFewClients as error:
                if last:
                    waited_s = time.monotonic() - begin
                    raise TooFewClients(error.free, error.required, waited_s) from None
                required = max(count, self._requirement.count)
                self._tell(self._listener.waiting, self._nodes.connected, required)

    def _send(self, message: Message, bodies: dict[int, bytes]) -> Request[Message]:
        node = message.metadata.dst_node_id
        content = message.content
        phase = _phase_of(message)
        # Messages of a round share their content: it is serialized once. Here and now, because
        # strategies write into it for the next phase.
        body = bodies.get(id(content)) or bodies.setdefault(id(content), encode(phase, content))
        names, number = layer_names(content), server_round(content)

        def read(data: bytes, in_time: bool) -> Message:
            if in_time:
                self._tell(self._listener.replied, node, phase, self._clock(), len(data))
            else:
                self._tell(self._listener.overdue, node, len(data))
            answer = decode(phase, data, names)
            if isinstance(answer, Refusal):
                if answer.report is not None:
                    self._tell(self._listener.reported, node, phase, answer.report, number)
                return _error(message, answer.code, answer.reason)
            return Message(answer, reply_to=message)

        def late(reply: Message) -> None:
            if reply.has_content():
                self._tell(self._listener.late, reply, phase, number)

        return self._nodes.send(
            node,
            body,
            Request(read, late),
            lambda: self._tell(self._listener.sent, node, phase, self._clock(), len(body)),
        )

    def _ask_for_model(self, node: int, timeout_s: float) -> ArrayRecord | str:
        """A client's model, or why there is none."""
        request: Request[ArrayRecord | Refusal] = Request(
            lambda data, _: decode_parameters(data), lambda _: None
        )
        self._nodes.send(node, ASK_PARAMETERS, request, lambda: None)
        self._nodes.settle([request], timeout_s)
        if isinstance(request.answer, ArrayRecord):
            return request.answer
        return request.problem if request.answer is None else request.answer.reason

    def _joined(self, node: Node, peer: Peer) -> None:
        self._tell(self._listener.connected, node.number, node.name, peer.loopback)

    def _left(self, node: Node) -> None:
        self._tell(self._listener.disconnected, node.number)


def _phase_of(message: Message) -> Phase:
    kind = message.metadata.message_type
    if kind not in _PHASES:
        raise ValueError(f"clients of start_client take no {kind!r} message")
    return _PHASES[kind]


def _error(message: Message, code: int, reason: str) -> Message:
    return Message(Error(code, reason), reply_to=message)


def _code(request: Request[Message]) -> int:
    gone = request.state is State.LOST
    return ErrorCode.NODE_UNAVAILABLE if gone else ErrorCode.REPLY_MESSAGE_UNAVAILABLE
