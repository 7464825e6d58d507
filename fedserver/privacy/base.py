"""What every privacy mechanism's options share, and what is said about its guarantee."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from telemetry.domain import NoiseRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedserver.options import ClientsConfig, ServerConfig

Finding = tuple[str, str]
"""Dotted path of an option, and what is wrong with its value."""

TOO_FEW_REPLIES: Final = "too_few_replies_for_privacy"
"""Reason of a round with fewer usable replies than the noise was made for."""
UNDEFINED_DISTANCE: Final = "undefined_distance_for_privacy"
"""Reason of a round whose models are all the same, or too far apart for a number."""

PUBLISHED: Final = ("privacy_distance", "privacy_noise_stdv")
"""Training metrics of a run with ``publish_distance``."""

MEAN_STRATEGIES: Final = frozenset({"FedAvg", "FedProx"})
"""Strategies that return the mean of what the clients sent: what the noise is calibrated to."""
_NO_FRACTION: Final = 1e-9
"""As a fraction: as many clients as the minimum says, however many there are. Flower reads exactly 0
as "no training"."""


class NotReleased(Exception):
    """Nothing may be released this round; the text is the round's reason."""


class _Options(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class AccountingConfig(_Options):
    """What an accountant must be told to put a number on the privacy that is spent."""

    delta: Annotated[float, Field(gt=0, lt=1)]
    """Probability that the guarantee does not hold; well below 1 in the number of clients."""
    population: Annotated[int, Field(ge=1)]
    """Clients from which the participants of a round are drawn. Recorded; does not lower epsilon."""


class PrivacyConfig(_Options, ABC):
    """One mechanism's options; its class is chosen by ``mechanism``.

    A subclass narrows ``mechanism`` to a ``Literal`` and says how much noise a round needs. Lengths
    (norm, distance, noise) are in the unit of the model's parameters.
    """

    measures_distance: ClassVar[bool] = False
    """Whether `noise` knows a distance, which ``publish_distance`` could publish."""

    mechanism: str
    noise_multiplier: Annotated[float, Field(ge=1e-5)]
    clipping_norm: Annotated[float, Field(gt=0)]
    num_sampled_clients: Annotated[int, Field(ge=1)]
    weights: Literal["examples", "equal"] = "examples"
    accounting: AccountingConfig | None = None
    publish_distance: bool = False

    @abstractmethod
    def noise(self, models: Sequence[Sequence[NDArray[Any]]]) -> NoiseRecord:
        """The noise for a round.

        Args:
            models: the floating-point layers of each client's model as received, at least
                ``num_sampled_clients`` of them, all of the same shapes.

        Raises:
            NotReleased: no amount of noise is right; the text is the reason.
        """

    @property
    def calibrated_stdv(self) -> float:
        """Noise multiplier × clipping norm ÷ sampled clients (McMahan et al., 2018)."""
        return self.noise_multiplier * self.clipping_norm / self.num_sampled_clients

    def published(self, noise: NoiseRecord) -> dict[str, float]:
        """What of a round's noise may be shown, by the names of training metrics."""
        if not self.publish_distance or noise.distance is None:
            return {}
        return dict(zip(PUBLISHED, (noise.distance, noise.noise_stdv), strict=True))

    def cohort(self, clients: ClientsConfig) -> ClientsConfig:
        """How clients are drawn: never fewer than the noise is made for; when accounted, exactly."""
        if self.accounting is not None:
            exactly = {"fraction_fit": _NO_FRACTION, "min_fit": self.num_sampled_clients}
            return clients.model_copy(update=exactly)
        at_least = max(clients.min_fit, self.num_sampled_clients)
        return clients.model_copy(update={"min_fit": at_least})

    # --- the guarantee ---------------------------------------------------------------------------

    def gaps(self, strategy: str) -> Iterator[str]:
        """Why the theory does not cover this use of the mechanism; nothing where it does."""
        if strategy not in MEAN_STRATEGIES:
            yield (
                f"the noise is made for a mean of clipped updates, and {strategy} returns something "
                f"else or keeps what has no noise from round to round (a mean: "
                f"{', '.join(sorted(MEAN_STRATEGIES))})"
            )
        if self.weights != "equal":
            yield (
                "privacy.weights examples lets a client with many examples count for more than the "
                "noise covers (equal does not)"
            )

    def label(self, strategy: str) -> str:
        """The mechanism as a run's record shows it."""
        if any(self.gaps(strategy)):
            return f"{self.mechanism} (no formal guarantee)"
        if self.accounting is not None:
            return f"{self.mechanism} (accounted at delta {self.accounting.delta:g})"
        return self.mechanism

    def notes(self, config: ServerConfig) -> Iterator[str]:
        """What a person must know before relying on it; fit for warnings at start."""
        for gap in self.gaps(config.strategy.name):
            yield f"privacy {self.mechanism}: no formal guarantee: {gap}"
        if config.seed is not None:
            yield (
                f"seed {config.seed} makes the noise predictable: whoever knows it can take the noise "
                "off again; seed: null where privacy matters"
            )
        clients, cohort = config.clients, self.cohort(config.clients)
        if cohort.min_fit > clients.min_fit:
            yield (
                f"clients.min_fit {clients.min_fit} is less than privacy.num_sampled_clients "
                f"{self.num_sampled_clients}: a round waits for {cohort.needed_to_train} clients"
            )
        if self.accounting is not None:
            yield (
                f"privacy.accounting: each round trains exactly {self.num_sampled_clients} clients, "
                "whatever clients.fraction_fit says, and a client that fails voids the round"
            )
            if config.model.initial is None:
                yield (
                    "privacy.accounting covers what is trained here; the first model comes from a "
                    "client, without noise: model.initial names one of your own"
                )

    # --- what cannot be ----------------------------------------------------------------------------

    def contradictions(self, config: ServerConfig) -> Iterator[Finding]:
        """What can never work, although each option by itself is fine."""
        if not math.isfinite(self.calibrated_stdv):
            yield "privacy.noise_multiplier", f"{self.noise_multiplier:g} makes the noise infinite"
        if self.publish_distance and not self.measures_distance:
            yield (
                "privacy.publish_distance",
                f"true: {self.mechanism} measures no distance; choices: false",
            )
        if self.accounting is not None:
            yield from self.cannot_account(self.accounting, config)

    def cannot_account(
        self, accounting: AccountingConfig, config: ServerConfig
    ) -> Iterator[Finding]:
        """Why no epsilon can be stated: it is stated only where it is true."""
        sampled = self.num_sampled_clients
        if config.strategy.name not in MEAN_STRATEGIES:
            yield (
                "privacy.accounting",
                (
                    f"cannot be had with strategy.name {config.strategy.name}: the accountant knows "
                    "the noise on a mean of clipped updates; choices: strategy.name "
                    f"{' or '.join(sorted(MEAN_STRATEGIES))}, or accounting: null"
                ),
            )
        if self.weights != "equal":
            yield (
                "privacy.weights",
                (
                    '"examples" cannot be accounted for: the client with most examples would count '
                    "for more than the noise covers; choices: equal, or privacy.accounting: null"
                ),
            )
        if config.clients.min_fit > sampled:
            yield (
                "clients.min_fit",
                (
                    f"{config.clients.min_fit} is greater than privacy.num_sampled_clients {sampled}, "
                    "and under privacy.accounting a round trains exactly these; choices: the same "
                    "number for both, or a smaller min_fit"
                ),
            )
        if accounting.population < sampled:
            yield (
                "privacy.accounting.population",
                (
                    f"{accounting.population} is fewer than privacy.num_sampled_clients {sampled}, "
                    "which are drawn from it"
                ),
            )
        if find_spec("dp_accounting") is None:
            yield (
                "privacy.accounting",
                'needs the accountant: pip install "fedserver-telemetry[dp]"',
            )
