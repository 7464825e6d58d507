"""Federated Averaging: McMahan et al., 2017, https://arxiv.org/abs/1602.05629."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedserver.strategies.base import StrategyConfig

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAvgConfig(StrategyConfig):
    """The mean of the clients' models, weighted by their examples. No options of its own."""

    name: Literal["FedAvg"] = "FedAvg"

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import FedAvg

        return FedAvg(
            fraction_train=clients.fraction_fit,
            fraction_evaluate=clients.fraction_evaluate,
            min_train_nodes=clients.min_fit,
            min_evaluate_nodes=clients.min_evaluate,
            min_available_nodes=clients.min_available,
        )
