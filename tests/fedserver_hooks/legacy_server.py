"""``python -m tests.fedserver_hooks.legacy_server ADDRESS STORE [dp]``: a user's own old server."""

from __future__ import annotations

import os
import sys

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import flwr as fl

from fedserver_hooks.legacy import with_emissions
from fedserver_hooks.meter import ReplayMeter
from fedserver_hooks.setup import new_recorder


class Gathering(fl.server.strategy.FedAvg):
    """Begins once everybody is there, and goes on with whoever is left."""

    everybody: int

    def initialize_parameters(
        self, client_manager: fl.server.ClientManager
    ) -> fl.common.Parameters | None:
        """A client's, as without it."""
        client_manager.wait_for(self.everybody, timeout=60)
        return super().initialize_parameters(client_manager)


def main() -> None:
    """Two rounds over all clients that come, metered at 100 W."""
    address, store, clients, *private = sys.argv[1:]
    gathering = Gathering(
        min_fit_clients=2,
        min_available_clients=2,
        min_evaluate_clients=2,
        accept_failures=True,
        on_fit_config_fn=lambda number: {"server_round": number},
    )
    gathering.everybody = int(clients)
    strategy: fl.server.strategy.Strategy = gathering
    if private:
        strategy = fl.server.strategy.DifferentialPrivacyServerSideFixedClipping(
            strategy, noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=int(clients)
        )
    recorder = new_recorder(
        store, strategy="FedAvg", run_name="legacy", country="ESP", meter=ReplayMeter(100.0)
    )
    fl.server.start_server(
        server_address=address,
        config=fl.server.ServerConfig(num_rounds=2),
        strategy=with_emissions(strategy, rounds=2, recorder=recorder),
    )


if __name__ == "__main__":
    main()
