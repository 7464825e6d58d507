"""Krum: Blanchard et al., 2017."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.base import StrategyConfig, sampling
from fedserver.strategies.robust_options import Malicious

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class KrumConfig(StrategyConfig):
    """One client's model: that which is nearest to its nearest neighbours."""

    summary: ClassVar[str] = "The one client's model that lies nearest to the others."
    paper: ClassVar[str] = "https://arxiv.org/abs/1703.02757"
    fleet_rule: ClassVar[str] = "2 × num_malicious_nodes + 3"

    name: Literal["Krum"] = "Krum"
    num_malicious_nodes: Malicious = 0

    @property
    def smallest_fleet(self) -> int:
        """n ≥ 2f + 3: with fewer the nearest neighbours may all be malicious."""
        return 2 * self.num_malicious_nodes + 3

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.robust import SafeKrum

        return SafeKrum(
            **sampling(clients),
            num_malicious_nodes=self.num_malicious_nodes,
            smallest_fleet=self.smallest_fleet,
        )
