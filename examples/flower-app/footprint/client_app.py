"""A client that measures itself: one line, with `emissions_mod`."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedserver_hooks.client import emissions_mod
from footprint import task

COUNTRY = "ESP"  # where this client computes

app = ClientApp(mods=[emissions_mod(country=COUNTRY)])


@app.query("initial_model")
def initial_model(message: Message, _: Context) -> Message:
    """The model to start from, where the server has no model.initial."""
    arrays = ArrayRecord(task.new_model())
    return Message(RecordDict({"arrays": arrays}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of training."""
    (values, labels), _ = task.load(int(context.node_config["partition-id"]))
    layers = message.content["arrays"].to_numpy_ndarrays()
    layers = task.train(layers, values, labels, epochs=int(context.run_config["app.epochs"]))
    content = RecordDict(
        {
            "arrays": ArrayRecord(layers),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
    )
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy on points that were held out."""
    _, (values, labels) = task.load(int(context.node_config["partition-id"]))
    loss, accuracy = task.evaluate(message.content["arrays"].to_numpy_ndarrays(), values, labels)
    metrics = MetricRecord({"num-examples": len(labels), "loss": loss, "accuracy": accuracy})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
