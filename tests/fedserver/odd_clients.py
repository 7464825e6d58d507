"""A ClientApp whose clients are of every kind that a fleet has, by the number of their partition.

For a real SuperLink: each SuperNode runs it in a process of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

RECORD: dict[str, Any] = {
    "schema": 1, "emissions_kg": 2e-6, "energy_kwh": 1e-5, "host_id": "a" * 12, "country": "ESP"
}  # fmt: skip
KINDS = (
    "bare", "record", "silent", "NaN", "infinite", "negative", "text", "true", "1e308",
    "evaluate only", "raises", "NaN model", "broadcastable",
)  # fmt: skip
"""In the order of partitions; a client trains on its partition's number of examples, plus one."""
BARE: dict[str, float] = {
    "bare": 1e-6, "NaN": math.nan, "infinite": math.inf, "negative": -1.0, "1e308": 1e308,
    "NaN model": 5e-6, "broadcastable": 6e-6,
}  # fmt: skip
OURS: dict[str, dict[str, Any]] = {
    "record": RECORD,
    "text": {"emissions_kg": "0.5"},
    "true": {"emissions_kg": True},
}

app = ClientApp()


def kind_of(context: Context) -> str:
    """What this client is."""
    return KINDS[int(context.node_config["partition-id"])]


def examples_of(kind: str) -> int:
    """By which a test knows a client again."""
    return KINDS.index(kind) + 1


@app.train()
def train(message: Message, context: Context) -> Message:
    """Adds 1 to every weight, or fails in its own way."""
    kind, spoils = kind_of(context), bool(context.run_config["app.spoils"])
    if kind == "raises":
        raise RuntimeError("told to raise")
    layers = {name: array.numpy() + np.float32(1) for name, array in _arrays(message).items()}
    if spoils and kind == "NaN model":
        layers = {name: layer * np.float32("nan") for name, layer in layers.items()}
    if spoils and kind == "broadcastable":
        layers = {name: layer[:1] for name, layer in layers.items()}
    metrics = MetricRecord({"num-examples": examples_of(kind)})
    if kind in BARE:
        metrics["emissions"] = BARE[kind]
    arrays = ArrayRecord({name: Array(layer) for name, layer in layers.items()})
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    if kind in OURS:
        content["emissions"] = ConfigRecord(OURS[kind])
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """An accuracy, and from one kind of client a report."""
    metrics = MetricRecord({"num-examples": 10, "accuracy": 0.5})
    if kind_of(context) == "evaluate only":
        metrics["emissions"] = 3e-6
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _arrays(message: Message) -> ArrayRecord:
    arrays = message.content["arrays"]
    assert isinstance(arrays, ArrayRecord)
    return arrays
