"""Metric privacy on the server, with fixed clipping: Sáinz-Pardo Díaz et al., 2025,
https://arxiv.org/abs/2502.01352.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from fedserver.privacy.base import (
    UNDEFINED_DISTANCE,
    AccountingConfig,
    Finding,
    NotReleased,
    PrivacyConfig,
)
from telemetry.domain import NoiseRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedserver.options import ServerConfig


class MetricPrivacyConfig(PrivacyConfig):
    """As central-dp, with less noise the farther apart the clients' models are.

    The distance is private itself, and so is the noise, which tells it: both are stored and shown
    nowhere, unless ``publish_distance`` says so.
    """

    measures_distance: ClassVar[bool] = True

    mechanism: Literal["metric-privacy"] = "metric-privacy"
    num_sampled_clients: Annotated[int, Field(ge=2)]

    def noise(self, models: Sequence[Sequence[NDArray[Any]]]) -> NoiseRecord:
        """Standard deviation (z / d) · S / m, where d is the greatest distance of two models."""
        from fedserver.privacy.distance import greatest_distance

        distance = greatest_distance(models)
        # All models alike would ask for infinite noise, and a distance beyond all numbers for none.
        if not 0 < distance < math.inf:
            raise NotReleased(UNDEFINED_DISTANCE)
        stdv = self.noise_multiplier / distance * self.clipping_norm / self.num_sampled_clients
        if not math.isfinite(stdv):
            raise NotReleased(UNDEFINED_DISTANCE)
        return NoiseRecord(noise_stdv=stdv, distance=distance)

    def cannot_account(
        self,
        accounting: AccountingConfig,  # noqa: ARG002
        config: ServerConfig,  # noqa: ARG002
    ) -> Iterator[Finding]:
        """Never: there is no epsilon that an accountant could add up."""
        yield (
            "privacy.accounting",
            (
                "cannot be had with metric-privacy: its noise depends on the clients' models, and the "
                "accountant knows fixed noise only; choices: null, or privacy.mechanism: central-dp"
            ),
        )
