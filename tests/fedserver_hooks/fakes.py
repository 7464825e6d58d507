"""A clock that tests turn by hand, and an FL server without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedserver_hooks.meter import Meter, ReplayMeter
from fedserver_hooks.reader import InlineReader
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import Owner, RoundRecord
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import START, make_run

T0 = START.timestamp()
Reply = Callable[[Message], Message]


class HandClock:
    """Epoch seconds that move only when told, or when somebody waits."""

    def __init__(self, now: float = T0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class LocalGrid(Grid):
    """Answers each message in this process, in order, by a function a node."""

    def __init__(self, nodes: dict[int, Reply], clock: HandClock | None = None) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1
        self.nodes = nodes
        self.sent: list[Message] = []
        self.clock = clock

    def set_run(self, run: Any) -> None:
        """Not used."""

    @property
    def run(self) -> Any:
        """Not used."""
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Not used by strategies."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Everyone, always."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not used by strategies."""
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not used by strategies."""
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Each node's answer; a minute passes."""
        batch = list(messages)
        self.sent += batch
        if self.clock is not None:
            self.clock.advance(60)
        return [self.nodes[m.metadata.dst_node_id](m) for m in batch]


def trains(add: float = 1.0, examples: int = 10, emissions: Any = None, **record: Any) -> Reply:
    """A client that adds ``add`` to each weight; ``emissions`` bare, ``record`` as ours."""

    def answer(message: Message) -> Message:
        metrics = MetricRecord({"num-examples": examples, "accuracy": 0.5 + add / 100})
        content = RecordDict({"metrics": metrics})
        if message.metadata.message_type == "train":
            arrays: ArrayRecord = message.content["arrays"]  # type: ignore[assignment]
            content["arrays"] = ArrayRecord(
                {k: Array(v.numpy() + np.float32(add)) for k, v in arrays.items()}
            )
            if emissions is not None:
                metrics["emissions"] = emissions
            if record:
                content["emissions"] = ConfigRecord({"schema": 1, **record})
        return Message(content, reply_to=message)

    return answer


def fails(reason: str = "out of memory") -> Reply:
    """A client that answers with an error."""
    return lambda message: Message(Error(code=7, reason=reason), reply_to=message)


def model() -> ArrayRecord:
    """Two small layers of float32."""
    return ArrayRecord(
        {
            "dense": Array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)),
            "bias": Array(np.zeros(4, dtype=np.float32)),
        }
    )


def recorder(
    store: Store | None = None,
    *,
    clock: HandClock | None = None,
    meter: Meter | None = None,
    on_round_closed: Callable[[RoundRecord], None] | None = None,
    **run: Any,
) -> RoundRecorder:
    """A recorder over a hand-turned clock and a meter of 100 W."""
    clock = clock or HandClock()
    return RoundRecorder(
        make_run(**run),
        InMemoryStore() if store is None else store,
        meter or ReplayMeter(100.0, clock=clock),
        clock=clock,
        owner=Owner(host="test", pid=1, token="t"),
        on_round_closed=on_round_closed,
        reader=InlineReader,
    )
