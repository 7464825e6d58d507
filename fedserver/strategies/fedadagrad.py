"""FedAdagrad: Reddi et al., 2021."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.adaptive import PAPER, Adaptivity, Rate
from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAdagradConfig(StrategyConfig):
    """Adagrad on the server: the second moment only grows, so steps become smaller."""

    summary: ClassVar[str] = (
        "Adagrad on the server: steps become smaller with the sum of squared updates."
    )
    paper: ClassVar[str] = PAPER

    name: Literal["FedAdagrad"] = "FedAdagrad"
    eta: Rate = 0.1
    tau: Adaptivity = 1e-3

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.moments import StatefulFedAdagrad

        return StatefulFedAdagrad(
            **sampling(clients),
            eta=self.eta,
            tau=self.tau,
        )
