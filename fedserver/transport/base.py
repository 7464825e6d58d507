"""What the transport raises, what it tells, and the part of Flower's grid that rounds need.

TransportError(TelemetryError)
├─ AddressError      the FL address cannot be listened on; the text says why
├─ TooFewClients     not enough clients were free in time
├─ NoInitialModel    no client could say what to begin with
├─ Refused           a client may not connect
├─ Unavailable       whether a client may connect cannot be known now
└─ Stopped           someone asked for the end
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from telemetry.domain import Phase
from telemetry.errors import TelemetryError
from telemetry.writer import Failures


class TransportError(TelemetryError):
    """Base of what this package raises."""


class AddressError(TransportError, ValueError):
    """The FL server cannot listen on ``address``."""

    def __init__(self, address: str, problem: str) -> None:
        self.address = address
        self.problem = problem
        super().__init__(f"{address!r}: {problem}")


class TooFewClients(TransportError):
    """``free`` clients could be asked where ``required`` were needed, after waiting ``waited_s``."""

    def __init__(self, free: int, required: int, waited_s: float) -> None:
        self.free = free
        self.required = required
        self.waited_s = waited_s
        waited = f" after {round(waited_s, 1):g} s" if waited_s >= 0.1 else ""
        super().__init__(f"too few clients: {free} of {required}{waited}")


class NoInitialModel(TransportError):
    """None of the ``asked`` clients gave initial parameters."""

    def __init__(self, asked: int) -> None:
        self.asked = asked
        super().__init__(
            f"none of {asked} clients has a model to begin with (get_parameters): "
            "set model.initial to an .npz file"
        )


class Stopped(TransportError):
    """The training was asked to stop (`BidiGrid.request_stop`)."""

    def __init__(self) -> None:
        super().__init__("the training was asked to stop")


class Refused(TransportError):
    """A client may not connect; it is told ``reason``, with UNAUTHENTICATED."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Unavailable(TransportError):
    """A client may try again later; it is told ``reason``, with UNAVAILABLE."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has been let in: what to call it, and what its gate knows it by."""

    name: str
    key: bytes


class Gate(Protocol):
    """Says who may connect. Called in a connection's own thread, before anything is read of it."""

    def admit(self, metadata: Sequence[tuple[str, str | bytes]], peer: str) -> Holder:
        """Who is calling from ``peer`` (``host:port``). Raises `Refused` or `Unavailable`."""


class GridListener(Protocol):
    """Is told what the transport sees. Calls come from any thread and hold up the training:
    be quick. What a listener raises is counted and goes no further.

    ``node`` counts connections from 1; times are epoch seconds of the grid's clock; sizes are
    those of the serialized message, None where the transport cannot know them.
    """

    def connected(self, node: int, name: str, loopback: bool) -> None:
        """A client's stream is open.

        ``name`` is what the gate calls it; without a gate its peer's host and a running number.
        """

    def disconnected(self, node: int) -> None:
        """A client's stream is gone."""

    def waiting(self, connected: int, required: int) -> None:
        """Still waiting for clients: called every half minute."""

    def sent(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """A message is about to go out."""

    def replied(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """An answer came in time, whatever is in it."""

    def failed(self, node: int, phase: Phase, reason: str) -> None:
        """There will be no usable answer in time: the client is hung, gone or not well."""

    def overdue(self, node: int, size_bytes: int) -> None:
        """An answer came after its time, whatever is in it."""

    def late(self, reply: Message, phase: Phase, server_round: int) -> None:
        """An answer came after its time, with the content that it would have had in time.

        ``server_round`` is the round it was asked in, 0 where the message did not say.
        """

    def reported(self, node: int, phase: Phase, report: ConfigRecord, server_round: int) -> None:
        """An answer says that the client failed, and holds a report all the same, in time or late."""


class NullListener:
    """Listens to nothing."""

    def connected(self, node: int, name: str, loopback: bool) -> None:
        """Nothing."""

    def disconnected(self, node: int) -> None:
        """Nothing."""

    def waiting(self, connected: int, required: int) -> None:
        """Nothing."""

    def sent(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """Nothing."""

    def replied(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """Nothing."""

    def failed(self, node: int, phase: Phase, reason: str) -> None:
        """Nothing."""

    def overdue(self, node: int, size_bytes: int) -> None:
        """Nothing."""

    def late(self, reply: Message, phase: Phase, server_round: int) -> None:
        """Nothing."""

    def reported(self, node: int, phase: Phase, report: ConfigRecord, server_round: int) -> None:
        """Nothing."""


def teller(failures: Failures | None) -> Callable[..., None]:
    """Calls a listener's method with its facts.

    What that raises costs neither a client its connection nor a round: it is counted in
    ``failures``, and logged the first time.
    """
    counted = failures or Failures()

    def tell(call: Callable[..., None], *facts: object) -> None:
        try:
            call(*facts)
        except Exception as error:  # noqa: BLE001 - the edge between training and telemetry
            counted.note("transport", "a listener failed", error=error)

    return tell


class RoundGrid(Grid):
    """A grid that waits for clients within limits: what `fedserver.loop` drives.

    Flower's strategies only ask for node ids and send and receive; the rest of Flower's interface
    belongs to a SuperLink and raises here.
    """

    @abstractmethod
    def require(self, count: int, timeout_s: float | None) -> None:
        """From now on `get_node_ids` waits until ``count`` nodes are free.

        ``timeout_s`` counts from this call (0: no wait, None: no limit); after it
        `get_node_ids` raises `TooFewClients`.
        """

    def set_run(self, run: object) -> None:
        """Not here: one process has one run."""
        raise NotImplementedError("this grid has no SuperLink")

    @property
    def run(self) -> object:  # type: ignore[override]  # there is none to return
        """Not here."""
        raise NotImplementedError("this grid has no SuperLink")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message, as Flower's deprecated way of making one."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not here: use `send_and_receive`."""
        raise NotImplementedError("this grid has no SuperLink; use send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not here: use `send_and_receive`."""
        raise NotImplementedError("this grid has no SuperLink; use send_and_receive")
