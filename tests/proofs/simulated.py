"""A simulation whose clients take a known CPU time, for proofs.

``python -m tests.proofs.simulated CLIENTS STORE_URL``. Every second client takes twice the CPU time
of the others. Round 1 starts the actors and does nothing else; round 2 is the one to look at.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported, which is next
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from fedserver_hooks.simulation import SimulationStrategy, cpu_time_mod

WORK_S: Final = 16.0
"""CPU seconds of all clients together."""


def weight(partition: int) -> int:
    """How much of the work is this client's."""
    return 1 + partition % 2


def main() -> None:
    """Simulate two rounds."""
    clients, store = int(sys.argv[1]), sys.argv[2]
    whole = sum(weight(partition) for partition in range(clients))
    client_app = ClientApp(mods=[cpu_time_mod])

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        partition = int(context.node_config["partition-id"])
        if message.content.config_records["config"]["server-round"] == 2:
            until = time.process_time() + WORK_S * weight(partition) / whole
            while time.process_time() < until:
                sum(i * i for i in range(10_000))
        arrays = message.content.array_records["arrays"]
        metrics = MetricRecord({"num-examples": 1 + partition})  # by which the test knows it
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    server_app = ServerApp()

    @server_app.main()
    def serve(grid: Grid, _: Context) -> None:
        averaging = FedAvg(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        strategy = SimulationStrategy.wrap(averaging, store=store, country="ESP")
        strategy.start(grid, ArrayRecord([np.zeros(1, np.float32)]), num_rounds=2)

    run_simulation(
        server_app,
        client_app,
        clients,
        backend_config={
            "init_args": {"num_cpus": clients, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
