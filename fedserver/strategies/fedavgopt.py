"""FedAvgOpt: Sáinz-Pardo Díaz & López García, 2025."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAvgOptConfig(StrategyConfig):
    """FedAvg with a factor for each client, chosen so that the mean is near all clients' models."""

    summary: ClassVar[str] = (
        "FedAvg with a factor for each client, searched for so that the mean lies near every client's "
        "model, layer by layer."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/2501.15949"

    name: Literal["FedAvgOpt"] = "FedAvgOpt"

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.factors import FactorSearch

        return FactorSearch(**sampling(clients))
