"""Bulyan: El Mhamdi et al., 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.base import StrategyConfig, sampling
from fedserver.strategies.robust_options import Malicious

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class BulyanConfig(StrategyConfig):
    """Multi-Krum's selection, then for each weight the mean of those nearest to the median."""

    summary: ClassVar[str] = (
        "Multi-Krum's selection, then each weight is the mean of those nearest to the median."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1802.07927"
    fleet_rule: ClassVar[str] = "4 × num_malicious_nodes + 3"

    name: Literal["Bulyan"] = "Bulyan"
    num_malicious_nodes: Malicious = 0

    @property
    def smallest_fleet(self) -> int:
        """n ≥ 4f + 3: with fewer, Flower's Bulyan aggregates nothing, every round."""
        return 4 * self.num_malicious_nodes + 3

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.robust import SafeBulyan

        return SafeBulyan(
            **sampling(clients),
            num_malicious_nodes=self.num_malicious_nodes,
            smallest_fleet=self.smallest_fleet,
        )
