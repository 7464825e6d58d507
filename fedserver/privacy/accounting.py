"""Adds up what the released models cost: epsilon at a given delta, by Rényi differential privacy.

The accountant is Flower's (extra ``dp``), without amplification by sampling: the clients' choice is
no secret here. Neighbouring populations differ by one client, added or removed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from fedserver.privacy.base import AccountingConfig

if TYPE_CHECKING:
    from flwr.serverapp import PrivacyAccountant

logger = logging.getLogger(__name__)

LARGE_EPSILON: Final = 50.0
"""Above this an epsilon is a number, not a protection."""
_STATE: Final = "accountant"


class Account:
    """The privacy that one run has spent.

    ``noise_multiplier`` and ``sampled`` (clients a round) are those of every release. Needs the extra
    ``dp``; the first one in a process takes some seconds to import it.
    """

    def __init__(self, accounting: AccountingConfig, noise_multiplier: float, sampled: int) -> None:
        from flwr.serverapp import (
            GaussianPrivacyEvent,
            NeighboringRelation,
            PrivacyConfig,
            SamplingMethod,
        )

        self._config = PrivacyConfig(
            target_delta=accounting.delta,
            population_size=accounting.population,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=SamplingMethod.NO_AMPLIFICATION,
        )
        self._event = GaussianPrivacyEvent(noise_multiplier, sampled, accounting.population)
        self._accountant = self._new()
        self.delta = accounting.delta

    def _new(self) -> PrivacyAccountant:
        from flwr.serverapp import RdpAccountant

        return RdpAccountant(self._config)

    @property
    def epsilon(self) -> float:
        """Spent by all releases so far; 0 before the first."""
        return float(self._accountant.get_privacy_spent().epsilon)

    def planned(self, releases: int) -> float:
        """The epsilon of that many releases altogether."""
        ahead = self._new()
        ahead.compose(self._event, releases)
        return float(ahead.get_privacy_spent().epsilon)

    def spend(self) -> None:
        """One more release."""
        self._accountant.compose(self._event)

    def announce(self, rounds: int) -> None:
        """Say at start what the whole run will have spent, and what that is worth."""
        epsilon = self.planned(rounds)
        logger.info(
            "privacy: %d rounds come to epsilon %.4g at delta %g", rounds, epsilon, self.delta
        )
        if epsilon > LARGE_EPSILON:
            logger.warning(
                "epsilon %.4g is formally private and practically not: what the model gives away about "
                "one client may be nearly everything; more noise (privacy.noise_multiplier) or fewer "
                "rounds lower it, and below about 10 it begins to protect",
                epsilon,
            )

    # --- to go on in another process -----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What was spent, as JSON can carry it."""
        return {_STATE: self._accountant.state_dict()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises ValueError for the state of another account."""
        if set(state) != {_STATE}:
            raise ValueError(f"the state of an account has {_STATE}, this one {sorted(state)}")
        self._accountant.load_state_dict(state[_STATE])
