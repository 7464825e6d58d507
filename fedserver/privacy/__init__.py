"""The privacy mechanisms that a configuration can name: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Union

from pydantic import Field

from fedserver.privacy.base import PUBLISHED, AccountingConfig, NotReleased, PrivacyConfig
from fedserver.privacy.central_dp import CentralDpConfig
from fedserver.privacy.metric_privacy import MetricPrivacyConfig

MECHANISMS: Final[tuple[type[PrivacyConfig], ...]] = (CentralDpConfig, MetricPrivacyConfig)
"""In the order in which messages name them."""

__all__ = [
    "MECHANISMS",
    "PUBLISHED",
    "AccountingConfig",
    "CentralDpConfig",
    "MetricPrivacyConfig",
    "NotReleased",
    "PrivacyConfig",
    "choice",
    "names",
]


def names() -> tuple[str, ...]:
    """What ``privacy.mechanism`` may be."""
    return tuple(config.model_fields["mechanism"].default for config in MECHANISMS)


def choice(configs: Sequence[type[PrivacyConfig]]) -> Any:
    """A type that pydantic reads as one of ``configs``, by ``mechanism``."""
    return Annotated[Union[tuple(configs)], Field(discriminator="mechanism")]  # noqa: UP007 built here
