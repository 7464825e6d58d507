"""A federation simulated on this machine (``pip install 'fedserver-telemetry[simulation]'``).

Flower runs the clients in processes of its own. What the machine uses is measured once, and split
over them by CPU time: a mod on the clients, another class for the server's wrapper.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported, which is next
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from fedserver_hooks.simulation import SimulationStrategy, cpu_time_mod

FEATURES = 512
POINTS = 4000

client_app = ClientApp(mods=[cpu_time_mod])


def points_of(partition: int) -> tuple[np.ndarray, np.ndarray]:
    """This client's points and what is to be learnt of them."""
    truth = np.random.default_rng(0).normal(size=FEATURES)
    own = np.random.default_rng(partition + 1)
    values = own.normal(size=(POINTS, FEATURES))
    return values, values @ truth + own.normal(scale=0.1, size=POINTS)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Gradient descent on this client's points; client 1 takes twice as many steps as client 0."""
    partition = int(context.node_config["partition-id"])
    values, wanted = points_of(partition)
    (weights,) = message.content["arrays"].to_numpy_ndarrays()
    for _ in range(200 * (1 + partition % 2)):
        weights = weights - 0.2 * values.T @ (values @ weights - wanted) / POINTS
    metrics = {"num-examples": POINTS, "loss": float(np.mean((values @ weights - wanted) ** 2))}
    content = {"arrays": ArrayRecord([weights]), "metrics": MetricRecord(metrics)}
    return Message(RecordDict(content), reply_to=message)


def main() -> None:
    """Simulate, and keep the footprint in ``--store``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--country", default="ESP")
    parser.add_argument("--store", default="sqlite:///telemetry.db")
    options = parser.parse_args()
    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, _: Context) -> None:
        averaging = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=options.clients,
            min_available_nodes=options.clients,
        )  # fmt: skip
        strategy = SimulationStrategy.wrap(
            averaging, store=options.store, country=options.country, run_name="simulation"
        )
        start = ArrayRecord([np.zeros(FEATURES)])
        strategy.start(grid, start, num_rounds=options.rounds)

    run_simulation(
        server_app, client_app, options.clients,
        backend_config={
            # As many actors as clients, however many cores there are.
            "init_args": {"num_cpus": options.clients, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
