"""The wrapper that makes any strategy private: clip, aggregate, add noise.

Directly around the strategy, inside the guard: what comes in is readable and finite, and what goes out
gets the names and types of the model back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedserver.privacy.accounting import Account
from fedserver.privacy.base import TOO_FEW_REPLIES, NotReleased, PrivacyConfig
from fedserver.privacy.clipping import clipped, is_protected, noised
from telemetry.domain import NoiseRecord

logger = logging.getLogger(__name__)

EXAMPLES_KEY: Final = "num-examples"

PrivacyListener = Callable[[float | None, NoiseRecord | None], None]
"""Takes the epsilon spent so far (None: not accounted for) and the noise of this round's model (None:
nothing was released)."""


def _nobody(epsilon: float | None, noise: NoiseRecord | None) -> None:
    """Nobody asked."""


@dataclass(frozen=True, slots=True)
class _Update:
    """One usable reply, with its layers as numbers."""

    reply: Message
    key: str
    layers: dict[str, NDArray[Any]]


class PrivateStrategy(Strategy):
    """Any strategy, made private by a mechanism.

    ``options`` names the mechanism; ``told`` hears after each aggregation what it came to, and of
    nothing that a log may show. Noise is drawn from NumPy's global generator.
    """

    def __init__(
        self, strategy: Strategy, options: PrivacyConfig, *, told: PrivacyListener = _nobody
    ) -> None:
        self.strategy = strategy
        self.options = options
        self.account: Account | None = None
        if options.accounting is not None:
            sampled = options.num_sampled_clients
            self.account = Account(options.accounting, options.noise_multiplier, sampled)
        self._told = told
        self._sent: dict[str, NDArray[Any]] = {}
        self._warned_of_counters = False

    def summary(self) -> None:
        """The inner strategy's summary."""
        self.strategy.summary()

    # --- training ------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; remembers the model that updates are measured from."""
        self._sent = _numbers(arrays)
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's model of the clipped updates, plus noise.

        Raises `NotReleased` where nothing may be released: fewer usable replies than
        ``num_sampled_clients``, or a mechanism that knows no right amount of noise.
        """
        released: NoiseRecord | None = None
        try:
            replies = list(replies)
            updates = self._usable(replies)
            noise = self.options.noise([self._protected(update.layers) for update in updates])
            for update in updates:
                self._clip(update)
            arrays, metrics = self.strategy.aggregate_train(server_round, replies)
            if arrays is None:
                return None, metrics
            arrays = self._noised(arrays, noise.noise_stdv)
            if self.account is not None:
                self.account.spend()
            released = noise
        finally:
            self._sent = {}
            self._told(None if self.account is None else self.account.epsilon, released)
        return arrays, self._published(metrics, noise)

    def _usable(self, replies: list[Message]) -> list[_Update]:
        good = [reply for reply in replies if reply.has_content()]
        wanted = self.options.num_sampled_clients
        too_many = self.account is not None and len(replies) != wanted
        if len(good) < wanted or too_many:
            logger.info(
                "%d of %d updates are usable, and privacy.num_sampled_clients is %d",
                len(good),
                len(replies),
                wanted,
            )
            raise NotReleased(TOO_FEW_REPLIES)
        updates = []
        for reply in good:
            ((key, record),) = reply.content.array_records.items()
            updates.append(_Update(reply, key, _numbers(record)))
        return updates

    def _protected(self, layers: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The floating-point layers of a model, by what was sent, in that order."""
        return [layers[name] for name, sent in self._sent.items() if is_protected(sent.dtype)]

    def _clip(self, update: _Update) -> None:
        """Replace, not change, what the reply holds: whoever read it before may still have it."""
        short = iter(
            clipped(
                self._protected(update.layers),
                self._protected(self._sent),
                self.options.clipping_norm,
            )
        )
        layers = {
            name: next(short)
            if is_protected(sent.dtype)
            else self._unprotected(sent, update.layers[name])
            for name, sent in self._sent.items()
        }
        content = update.reply.content
        content[update.key] = ArrayRecord({name: Array(layer) for name, layer in layers.items()})
        if self.options.weights == "equal":
            ((key, metrics),) = content.metric_records.items()
            content[key] = MetricRecord({**metrics, EXAMPLES_KEY: 1})

    def _unprotected(self, sent: NDArray[Any], received: NDArray[Any]) -> NDArray[Any]:
        """A layer of whole numbers: neither clipped nor noised, so never under a stated epsilon."""
        if not self._warned_of_counters:
            self._warned_of_counters = True
            logger.warning(
                "the model has layers of whole numbers, which privacy cannot protect: %s",
                "they are aggregated as they are"
                if self.account is None
                else "they stay as they were sent",
            )
        return received if self.account is None else sent

    def _noised(self, arrays: ArrayRecord, stdv: float) -> ArrayRecord:
        """New layers: some strategies keep the record that they return."""
        names = arrays if set(arrays) == set(self._sent) else self._sent
        layers = {}
        for (name, array), sent_name in zip(arrays.items(), names, strict=True):
            sent, layer = self._sent[sent_name], array.numpy()
            if is_protected(sent.dtype):
                layer = noised(
                    layer if is_protected(layer.dtype) else layer.astype(sent.dtype), stdv
                )
            layers[name] = Array(layer)
        return ArrayRecord(layers)

    def _published(self, metrics: MetricRecord | None, noise: NoiseRecord) -> MetricRecord | None:
        published = self.options.published(noise)
        return MetricRecord({**(metrics or {}), **published}) if published else metrics

    # --- evaluation ----------------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The inner strategy's metrics: they are outside of any guarantee."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    # --- to go on in another process -----------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What was spent, as JSON can carry it; the inner strategy answers for itself."""
        return {} if self.account is None else self.account.state()

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises ValueError for a state of other options."""
        if self.account is not None:
            self.account.load_state(state)
        elif state:
            raise ValueError("there is the state of an account, and nothing is accounted for")


def _numbers(arrays: ArrayRecord) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(array.numpy()) for name, array in arrays.items()}
