"""Federated Averaging: McMahan et al., 2017."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAvgConfig(StrategyConfig):
    """The mean of the clients' models, weighted by their examples. No options of its own."""

    summary: ClassVar[str] = "The mean of the clients' models, weighted by their examples."
    paper: ClassVar[str] = "https://arxiv.org/abs/1602.05629"

    name: Literal["FedAvg"] = "FedAvg"

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import FedAvg

        return FedAvg(**sampling(clients))
