"""FedAdam: Reddi et al., 2021."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedserver.strategies.adaptive import PAPER, Adaptivity, FirstDecay, Rate, SecondDecay
from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAdamConfig(StrategyConfig):
    """Adam on the server, the mean update in place of the gradient; corrected for its first rounds."""

    summary: ClassVar[str] = "Adam on the server: the mean update is its gradient."
    paper: ClassVar[str] = PAPER

    name: Literal["FedAdam"] = "FedAdam"
    eta: Rate = 0.1
    beta_1: FirstDecay = 0.9
    beta_2: SecondDecay = 0.99
    tau: Adaptivity = 1e-3

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.moments import StatefulFedAdam

        return StatefulFedAdam(
            **sampling(clients),
            eta=self.eta,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            tau=self.tau,
        )
