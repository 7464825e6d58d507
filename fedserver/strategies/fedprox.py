"""FedProx: Li et al., 2020."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedProxConfig(StrategyConfig):
    """FedAvg whose clients add a proximal term to their loss; they must read it from the config."""

    summary: ClassVar[str] = (
        "FedAvg; clients are told (proximal_mu in their config) to stay near the model that was sent, "
        "which has an effect only in clients that use it."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1812.06127"

    name: Literal["FedProx"] = "FedProx"
    proximal_mu: Annotated[
        float, Field(ge=0, description="weight of the clients' proximal term")
    ] = 1.0

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002
        """Without its term it is FedAvg."""
        if self.proximal_mu == 0:
            yield "strategy.proximal_mu 0: FedProx is FedAvg then"

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import FedProx

        return FedProx(**sampling(clients), proximal_mu=self.proximal_mu)
