"""A server of one's own, of Flower's older kind, with two lines for its footprint."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before flwr is imported

import flwr as fl

from fedserver_hooks.legacy import with_emissions  # the first line

strategy = fl.server.strategy.FedAvg(min_fit_clients=2, min_available_clients=2)
strategy = with_emissions(strategy, country="ESP", rounds=3)  # and the second

if __name__ == "__main__":
    fl.server.start_server(
        server_address=sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5000",
        config=fl.server.ServerConfig(num_rounds=3),
        strategy=strategy,
    )
