"""FedOpt's own aggregation: stochastic gradient descent with momentum, on the server.

Reddi et al., 2021, https://arxiv.org/abs/2003.00295, algorithm 1 with SGD as the server's optimiser.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedserver.strategies.state import State, packed, unpacked


class ServerSgd(FedAvg):
    """x ← x + η·m with m ← β₁·m + (1 − β₁)·Δ and Δ = FedAvg(replies) − x, for each layer of floats.

    Integer layers are counters, not weights: they take FedAvg's mean.

    Args:
        eta: η, the server's learning rate.
        beta_1: β₁, the share of the old momentum, in [0, 1).
        sampling: FedAvg's own arguments.
    """

    def __init__(self, *, eta: float = 1.0, beta_1: float = 0.0, **sampling: Any) -> None:
        super().__init__(**sampling)
        self.eta = eta
        self.beta_1 = beta_1
        self._model: ArrayRecord | None = None
        self._momentum: dict[str, NDArray[Any]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """FedAvg's; keeps the model that the updates are measured from."""
        self._model = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The stepped model in the types that were sent, or ``(None, None)`` without replies."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return None, metrics
        if self._model is None:
            raise RuntimeError("aggregate_train without configure_train: FedOpt has no model")
        stepped: dict[str, Array] = {}
        momentum: dict[str, NDArray[Any]] = {}
        for name, sent in self._model.items():
            x = sent.numpy()
            if x.dtype.kind != "f":
                stepped[name] = mean[name]
                continue
            old = self._momentum.get(name)
            new_x, new_m = step(x, mean[name].numpy(), old, eta=self.eta, beta_1=self.beta_1)
            stepped[name], momentum[name] = Array(new_x), new_m
        self._momentum = momentum if self.beta_1 else {}
        return ArrayRecord(stepped), metrics

    def state(self) -> State:
        """``momentum/<layer>``, of the layer's shape and type; empty for β₁ = 0."""
        return packed(momentum=self._momentum)

    def load_state(self, state: State) -> None:
        """The inverse of `state`."""
        (momentum,) = unpacked(state, "momentum")
        self._momentum = momentum or {}


def step(
    x: NDArray[Any],
    mean: NDArray[Any],
    momentum: NDArray[Any] | None,
    *,
    eta: float,
    beta_1: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One layer's next weights and momentum, both of the shape and type of ``x``.

    Computed in float64, so that η = 1 and β₁ = 0 give ``mean`` itself and not its neighbour.
    """
    wide = x.astype(np.float64)
    delta = mean.astype(np.float64) - wide
    old = np.zeros_like(wide) if momentum is None else momentum.astype(np.float64)
    new = beta_1 * old + (1 - beta_1) * delta
    return np.asarray((wide + eta * new).astype(x.dtype)), np.asarray(new.astype(x.dtype))
