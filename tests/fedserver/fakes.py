"""Strategies and a grid without sockets, for tests of the guard and of the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    Krum,
    Strategy,
)

from fedserver.transport import RoundGrid, TooFewClients, prepare_flower_process

prepare_flower_process()

NODES = (1, 2, 3, 4, 5)

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "FedAvg": lambda: FedAvg(),
    "FedAdam": lambda: FedAdam(),
    "FedAvgM": lambda: FedAvgM(server_momentum=0.9),
    "FedMedian": lambda: FedMedian(),
    "Krum": lambda: Krum(num_malicious_nodes=1),
    "FedAvg of some": lambda: FedAvg(fraction_train=0.6, fraction_evaluate=0.4),
    "DP(FedAvg)": lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 5.0, 5),
}


def model(**layers: Any) -> ArrayRecord:
    """A model with these layers, by default two of float32 and a counter; not in name order."""
    named = layers or {
        "w": np.arange(12, dtype=np.float32).reshape(4, 3),
        "b": np.ones(3, np.float32),
    }
    return ArrayRecord({name: Array(np.asarray(values)) for name, values in named.items()})


def values_of(arrays: ArrayRecord | None) -> dict[str, Any]:
    """A model as plain numbers."""
    assert arrays is not None
    return {name: array.numpy().tolist() for name, array in arrays.items()}


def bytes_of(arrays: ArrayRecord | None) -> list[tuple[str, bytes]]:
    """A model bit for bit, with the order of its layers."""
    assert arrays is not None
    return [(name, array.data) for name, array in arrays.items()]


class FakeGrid(RoundGrid):
    """Nodes that answer at once, each in its own way but always in the same.

    ``answer`` makes a reply's content of a message; by default a node trains as `trained` does.
    """

    def __init__(
        self,
        nodes: Iterable[int] = NODES,
        answer: Callable[[Message], RecordDict | None] | None = None,
    ) -> None:
        self.nodes = list(nodes)
        self.answer = answer or default_answer
        self.required: list[tuple[int, float | None]] = []
        self.timeouts: list[float | None] = []

    def require(self, count: int, timeout_s: float | None) -> None:
        """Noted."""
        self.required.append((count, timeout_s))

    def get_node_ids(self) -> list[int]:
        """All nodes, if there are as many as were required last."""
        required, waited_s = self.required[-1] if self.required else (0, 0.0)
        if len(self.nodes) < required:
            raise TooFewClients(len(self.nodes), required, waited_s or 0.0)
        return list(self.nodes)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """A reply to each message, in order."""
        self.timeouts.append(timeout)
        answers = [(message, self.answer(message)) for message in messages]
        return [Message(content, reply_to=message) for message, content in answers if content]


def default_answer(message: Message) -> RecordDict:
    """`trained` or `evaluated`, as the message asks."""
    return trained(message) if message.metadata.message_type == "train" else evaluated(message)


def trained(message: Message, **metrics: Any) -> RecordDict:
    """A step that depends on the node and the round, weighted by the node's number."""
    node = message.metadata.dst_node_id
    number = message.content.config_records["config"]["server-round"]
    assert isinstance(number, int)
    draws = np.random.default_rng((node, number))  # apart from the global state
    sent = message.content.array_records["arrays"]
    layers = {
        name: Array(_step(array.numpy(), draws.normal(size=array.numpy().shape)))
        for name, array in sent.items()
    }
    return update(ArrayRecord(layers), examples=10 * node, metrics=metrics)


def _step(values: Any, by: Any) -> Any:
    return np.asarray((values + by).astype(values.dtype))


def evaluated(message: Message, **metrics: Any) -> RecordDict:
    """A loss that depends on the node."""
    node = message.metadata.dst_node_id
    return RecordDict(
        {"metrics": MetricRecord({"num-examples": node, "loss": 1 / node, **metrics})}
    )


def update(
    arrays: ArrayRecord, examples: Any = 10, metrics: Mapping[str, Any] | None = None
) -> RecordDict:
    """The content of a reply to a train message."""
    numbers = MetricRecord(
        {**({} if examples is None else {"num-examples": examples}), **(metrics or {})}
    )
    return RecordDict({"arrays": arrays, "metrics": numbers})


def ask(nodes: Iterable[int], arrays: ArrayRecord, kind: str = "train") -> list[Message]:
    """Messages as a strategy makes them."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
    return [Message(content, node, kind) for node in nodes]
