"""Coordinate-wise trimmed mean: Yin et al., 2018."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from fedserver.strategies.base import StrategyConfig, sampling

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class FedTrimmedAvgConfig(StrategyConfig):
    """Each weight is the mean over the clients without the smallest and the greatest ones."""

    summary: ClassVar[str] = (
        "Each weight is the mean over the clients without the smallest and the greatest; examples "
        "do not count."
    )
    paper: ClassVar[str] = "https://arxiv.org/abs/1803.01498"

    name: Literal["FedTrimmedAvg"] = "FedTrimmedAvg"
    beta: Annotated[
        float, Field(ge=0, lt=0.5, description="share of the clients cut off at each end")
    ] = 0.2

    def notes(self, trained: int) -> Iterator[str]:
        """Nothing is cut where the share is less than one client."""
        if int(self.beta * trained) > 0:
            return
        if self.beta == 0:
            yield "strategy.beta 0: nothing is cut off, FedTrimmedAvg is a plain mean then"
        else:
            yield (
                f"strategy.beta {self.beta:g}: nothing is cut off from fewer than "
                f"{ceil(1 / self.beta)} clients; {trained} are enough for a round"
            )

    def build(self, clients: ClientsConfig) -> Strategy:
        from flwr.serverapp.strategy import FedTrimmedAvg

        return FedTrimmedAvg(**sampling(clients), beta=self.beta)
