"""Differential privacy on the server, with fixed clipping: McMahan et al., 2018,
https://arxiv.org/abs/1710.06963.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from fedserver.privacy.base import PrivacyConfig
from telemetry.domain import NoiseRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CentralDpConfig(PrivacyConfig):
    """Each client's update is clipped; noise of the same size in every round hides any one of them.

    On ordinary input, over FedAvg and with the same seed, the model is bit for bit that of Flower's
    `DifferentialPrivacyServerSideFixedClipping`.
    """

    mechanism: Literal["central-dp"] = "central-dp"

    def noise(self, models: Sequence[Sequence[NDArray[Any]]]) -> NoiseRecord:  # noqa: ARG002
        """Standard deviation z · S / m, whatever the clients sent."""
        return NoiseRecord(noise_stdv=self.calibrated_stdv)
