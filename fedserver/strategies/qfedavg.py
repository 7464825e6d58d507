"""q-FedAvg: Li et al., 2020."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class QFedAvgConfig(StrategyConfig):
    """Clients with a greater loss weigh more, for accuracies that are closer to one another.

    Needs the train loss of every client. A model with integer layers cannot be trained with it.
    """

    summary: ClassVar[str] = (
        "Clients with a greater train loss weigh more; each must send that loss. Not for models with "
        "integer layers."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1905.10497"
    example: ClassVar[Mapping[str, Any]] = {"client_learning_rate": 0.1}

    name: Literal["QFedAvg"] = "QFedAvg"
    client_learning_rate: Annotated[
        float, Field(gt=0, description="the learning rate that the clients use")
    ]
    q: Annotated[float, Field(ge=0, description="how much the loss counts; 0: not at all")] = 0.1
    train_loss_key: Annotated[
        str,
        Field(min_length=1, max_length=64, description="train metric that holds a client's loss"),
    ] = "train_loss"

    @property
    def needs_metrics(self) -> frozenset[str]:
        """The loss."""
        return frozenset({self.train_loss_key})

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002
        """What it asks of the clients."""
        yield f"QFedAvg: an update without the train metric {self.train_loss_key} is refused"

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import QFedAvg

        return QFedAvg(
            client_learning_rate=self.client_learning_rate,
            q=self.q,
            train_loss_key=self.train_loss_key,
            **sampling(clients),
        )
