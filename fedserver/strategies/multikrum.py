"""Multi-Krum: Blanchard et al., 2017."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.base import StrategyConfig, sampling
from fedserver.strategies.robust_options import Malicious

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class MultiKrumConfig(StrategyConfig):
    """The mean of the models that Krum likes best, weighted by their examples."""

    summary: ClassVar[str] = (
        "The mean of the num_nodes_to_select models that lie nearest to the others, weighted by "
        "their examples."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1703.02757"
    fleet_rule: ClassVar[str] = (
        "2 × num_malicious_nodes + 3, or num_nodes_to_select + num_malicious_nodes if that is more"
    )

    name: Literal["MultiKrum"] = "MultiKrum"
    num_malicious_nodes: Malicious = 0
    num_nodes_to_select: Annotated[
        int, Field(ge=1, description="models that are averaged; 1 is Krum")
    ] = 1

    @property
    def smallest_fleet(self) -> int:
        """n ≥ 2f + 3, and enough that f models can be left out."""
        malicious = self.num_malicious_nodes
        return max(2 * malicious + 3, self.num_nodes_to_select + malicious)

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002
        """With one model it is Krum."""
        if self.num_nodes_to_select == 1:
            yield "strategy.num_nodes_to_select 1: MultiKrum is Krum then"

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.robust import SafeMultiKrum

        return SafeMultiKrum(
            **sampling(clients),
            num_malicious_nodes=self.num_malicious_nodes,
            num_nodes_to_select=self.num_nodes_to_select,
            smallest_fleet=self.smallest_fleet,
        )
