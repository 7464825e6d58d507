"""FedOpt: Reddi et al., 2021, with plain SGD and momentum on the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.adaptive import PAPER, FirstDecay
from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedOptConfig(StrategyConfig):
    """A step of the server along the mean update: x + η·m with m = β₁·m + (1 − β₁)·(mean − x).

    Ours: Flower's class of this name aggregates as FedAvg does and ignores its options. With the
    defaults the step is the whole update, and FedOpt equals FedAvg.
    """

    summary: ClassVar[str] = (
        "SGD with momentum on the server: m = beta_1·m + (1 − beta_1)·(mean − x), x + eta·m. "
        "With the defaults it equals FedAvg."
    )
    paper: ClassVar[str] = PAPER

    name: Literal["FedOpt"] = "FedOpt"
    eta: Annotated[float, Field(gt=0, description="server's learning rate")] = 1.0
    beta_1: FirstDecay = 0.0

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002
        """With the defaults it is FedAvg."""
        if (self.eta, self.beta_1) == (1, 0):
            yield "strategy.eta 1 and strategy.beta_1 0: FedOpt is FedAvg then"

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.server_sgd import ServerSgd

        return ServerSgd(eta=self.eta, beta_1=self.beta_1, **sampling(clients))
