"""What every strategy's options share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

    from fedserver.options import ClientsConfig


class StrategyConfig(BaseModel, ABC):
    """One strategy's own options; its class is chosen by ``name``.

    A subclass narrows ``name`` to a ``Literal`` with a default, and adds options with units in
    their names and defaults that make sense.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    needs_metrics: ClassVar[frozenset[str]] = frozenset()
    """Train metrics that the strategy itself reads, and that therefore stay in the replies."""

    name: str

    @abstractmethod
    def build(self, clients: ClientsConfig) -> Strategy:
        """The strategy itself, new; flwr is imported only now."""
