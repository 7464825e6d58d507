"""Federated Averaging with server momentum: Hsu et al., 2019."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedAvgMConfig(StrategyConfig):
    """FedAvg with a learning rate and momentum on the server. With the defaults it is FedAvg."""

    summary: ClassVar[str] = (
        "FedAvg with a learning rate and heavy-ball momentum on the server. With the defaults it "
        "equals FedAvg."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1909.06335"

    name: Literal["FedAvgM"] = "FedAvgM"
    server_learning_rate: Annotated[
        float, Field(ge=0, description="server's learning rate; 0 never changes the model")
    ] = 1.0
    server_momentum: Annotated[
        float, Field(ge=0, description="share of the old step that is added; from 1 on it grows")
    ] = 0.0

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002
        """The ends of the ranges."""
        if (self.server_learning_rate, self.server_momentum) == (1, 0):
            yield (
                "strategy.server_learning_rate 1 and strategy.server_momentum 0: "
                "FedAvgM is FedAvg then"
            )
        if self.server_learning_rate == 0:
            yield "strategy.server_learning_rate 0: the model never changes"
        if self.server_momentum >= 1:
            yield f"strategy.server_momentum {self.server_momentum:g}: steps grow without limit"

    def build(self, clients: ClientsConfig) -> Strategy:
        from fedserver.strategies.momentum import StatefulFedAvgM

        return StatefulFedAvgM(
            **sampling(clients),
            server_learning_rate=self.server_learning_rate,
            server_momentum=self.server_momentum,
        )
