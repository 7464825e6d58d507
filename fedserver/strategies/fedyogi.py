"""FedYogi: Reddi et al., 2021."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.adaptive import PAPER, Adaptivity, FirstDecay, Rate, SecondDecay
from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedYogiConfig(StrategyConfig):
    """Yogi on the server: Adam whose second moment changes only little in one round."""

    summary: ClassVar[str] = (
        "Yogi on the server: as FedAdam, with a second moment that changes slowly."
    )
    paper: ClassVar[str] = PAPER

    name: Literal["FedYogi"] = "FedYogi"
    eta: Rate = 0.01
    beta_1: FirstDecay = 0.9
    beta_2: SecondDecay = 0.99
    tau: Adaptivity = 1e-3

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.moments import StatefulFedYogi

        return StatefulFedYogi(
            **sampling(clients),
            eta=self.eta,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            tau=self.tau,
        )
