"""The strategies that a configuration can name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Union

from pydantic import Field

from fedserver.strategies.base import StrategyConfig
from fedserver.strategies.bulyan import BulyanConfig
from fedserver.strategies.fedadagrad import FedAdagradConfig
from fedserver.strategies.fedadam import FedAdamConfig
from fedserver.strategies.fedavg import FedAvgConfig
from fedserver.strategies.fedavgm import FedAvgMConfig
from fedserver.strategies.fedavgopt import FedAvgOptConfig
from fedserver.strategies.fedmedian import FedMedianConfig
from fedserver.strategies.fedopt import FedOptConfig
from fedserver.strategies.fedprox import FedProxConfig
from fedserver.strategies.fedtrimmedavg import FedTrimmedAvgConfig
from fedserver.strategies.fedyogi import FedYogiConfig
from fedserver.strategies.krum import KrumConfig
from fedserver.strategies.multikrum import MultiKrumConfig
from fedserver.strategies.qfedavg import QFedAvgConfig

STRATEGIES: Final[tuple[type[StrategyConfig], ...]] = (
    FedAvgConfig,
    FedProxConfig,
    FedAdamConfig,
    FedYogiConfig,
    FedOptConfig,
    FedAvgMConfig,
    FedMedianConfig,
    FedAvgOptConfig,
    FedAdagradConfig,
    FedTrimmedAvgConfig,
    KrumConfig,
    MultiKrumConfig,
    BulyanConfig,
    QFedAvgConfig,
)
"""In the order in which `fedserver strategies` shows them."""

__all__ = ["STRATEGIES", "FedAvgConfig", "StrategyConfig", "choice", "named", "names"]


def names() -> tuple[str, ...]:
    """What ``strategy.name`` may be."""
    return tuple(config.model_fields["name"].default for config in STRATEGIES)


def named(name: str) -> type[StrategyConfig] | None:
    """The options of the strategy of that name; None if there is none."""
    return dict(zip(names(), STRATEGIES, strict=True)).get(name)


def choice(configs: Sequence[type[StrategyConfig]]) -> Any:
    """A type that pydantic reads as one of ``configs``, by ``name``."""
    if len(configs) == 1:  # pydantic wants at least two for a discriminator
        return configs[0]
    return Annotated[Union[tuple(configs)], Field(discriminator="name")]  # noqa: UP007 built here
