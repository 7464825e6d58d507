"""A user's own ServerApp: Flower's strategy and loop, and our two lines around them."""

from __future__ import annotations

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedserver_hooks import EmissionsStrategy
from tests.fedserver.odd_clients import KINDS

ROUNDS = 2

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train with everybody."""
    few = len(KINDS)
    averaging = FedAvg(min_train_nodes=few, min_evaluate_nodes=few, min_available_nodes=few)
    store = str(context.run_config["app.store"])
    strategy = EmissionsStrategy.wrap(averaging, store=store, country="ESP")
    strategy.start(grid, ArrayRecord([np.zeros((4, 3), np.float32)]), num_rounds=ROUNDS)
