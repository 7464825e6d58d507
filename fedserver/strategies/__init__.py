"""The strategies that a configuration can name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Union

from pydantic import Field

from fedserver.strategies.base import StrategyConfig
from fedserver.strategies.fedavg import FedAvgConfig

STRATEGIES: Final[tuple[type[StrategyConfig], ...]] = (FedAvgConfig,)
"""In the order in which `fedserver strategies` shows them."""

__all__ = ["STRATEGIES", "FedAvgConfig", "StrategyConfig", "choice", "names"]


def names() -> tuple[str, ...]:
    """What ``strategy.name`` may be."""
    return tuple(config.model_fields["name"].default for config in STRATEGIES)


def choice(configs: Sequence[type[StrategyConfig]]) -> Any:
    """A type that pydantic reads as one of ``configs``, by ``name``."""
    if len(configs) == 1:  # pydantic wants at least two for a discriminator
        return configs[0]
    return Annotated[Union[tuple(configs)], Field(discriminator="name")]  # noqa: UP007 built here
