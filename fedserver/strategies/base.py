"""What every strategy's options share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class StrategyConfig(BaseModel, ABC):
    """One strategy's own options; its class is chosen by ``name``.

    A subclass narrows ``name`` to a ``Literal`` with a default, says in one line what it does and
    where it is described, and adds its options: Flower's names in snake case, with ranges, and with a
    description each, which `fedserver strategies` and docs/strategies.md show.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    summary: ClassVar[str]
    """What it does, in one sentence."""
    paper: ClassVar[str]
    """Where it is described: a URL."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Values for options without a default, as one might set them."""
    fleet_rule: ClassVar[str] = "any number"
    """How `smallest_fleet` follows from the options, in words."""

    name: str

    @property
    def needs_metrics(self) -> frozenset[str]:
        """Train metrics that the strategy itself reads, and that therefore stay in the replies.

        They are losses: each must be a finite number of at least 0, or the reply is refused.
        """
        return frozenset()

    @property
    def smallest_fleet(self) -> int:
        """Updates that one round needs to be aggregated as the paper says."""
        return 1

    def notes(self, trained: int) -> Iterator[str]:  # noqa: ARG002 - most have nothing to say
        """What works, but perhaps otherwise than it reads. ``trained``: clients a round, at least."""
        yield from ()

    @abstractmethod
    def build(self, clients: ClientsConfig) -> Strategy:
        """The strategy itself, new; flwr is imported only now."""


class Sampling(TypedDict):
    """Who takes part in a round, in the words of Flower's strategies."""

    fraction_train: float
    fraction_evaluate: float
    min_train_nodes: int
    min_evaluate_nodes: int
    min_available_nodes: int


def sampling(clients: ClientsConfig) -> Sampling:
    """The arguments that every one of Flower's strategies takes."""
    return Sampling(
        fraction_train=clients.fraction_fit,
        fraction_evaluate=clients.fraction_evaluate,
        min_train_nodes=clients.min_fit,
        min_evaluate_nodes=clients.min_evaluate,
        min_available_nodes=clients.min_available,
    )
