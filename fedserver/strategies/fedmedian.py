"""Coordinate-wise median: Yin et al., 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedMedianConfig(StrategyConfig):
    """Each weight is the median of the clients' weights; examples do not count. No options of its own."""

    summary: ClassVar[str] = "Each weight is the median over the clients; examples do not count."
    paper: ClassVar[str] = "https://arxiv.org/abs/1803.01498"

    name: Literal["FedMedian"] = "FedMedian"

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import FedMedian

        return FedMedian(**sampling(clients))
