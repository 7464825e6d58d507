"""Keeps a client's mistake from becoming everyone's: a wrapper directly around the strategy.

Flower's strategies trust their replies (Blanchard et al., 2017, https://arxiv.org/abs/1703.02757
show what one bad reply does to a mean). Here a reply that cannot be used becomes an error with a plain
reason before a strategy sees it, and whatever a strategy raises becomes a failed round: the previous
model stands, and the training goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedserver.replies import (
    EXAMPLES_KEY,
    Layer,
    Weighted,
    arranged,
    layers_of,
    numbers_of,
    problem_with_examples,
    problem_with_model,
    problem_with_update,
    restored,
    weighted_means,
)
from fedserver.strategies.state import load_state_of, state_of
from telemetry.domain import Phase

logger = logging.getLogger(__name__)

UNUSABLE_REPLY: Final = 100
"""Error code of a reply that the guard refused; Flower's own codes end below."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The optional metrics of one round's replies, in one phase."""

    phase: Phase
    server_round: int
    values: Mapping[str, float]
    """Means by examples, each over those clients that sent a finite number."""
    senders: Mapping[str, int]
    """How many clients these are."""
    usable: int
    """Clients whose replies were usable, whatever metrics they sent."""


MetricsListener = Callable[[Heard], None]


def _ignore_metrics(heard: Heard) -> None:
    """Nobody asked for them."""


class GuardStrategy(Strategy):
    """Any strategy, safe from its replies.

    ``failed(node, reason)`` is told of each update that is refused here (not of replies that are
    errors already), ``round_failed(reason)`` of a round without a new model. The strategy sees ``num-examples`` and the metrics in
    ``needs_metrics`` and nothing else; the other metrics are averaged here, over whoever sent them,
    given to ``metrics`` and returned with the strategy's own; of too many names, those in ``wanted``
    are kept. ``remembers`` is the strategy whose state is put back with the model when a model is
    refused, if it is not the wrapped one itself. Draws no random numbers.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        failed: Callable[[int, str], None],
        round_failed: Callable[[str], None],
        metrics: MetricsListener = _ignore_metrics,
        needs_metrics: frozenset[str] = frozenset(),
        wanted: Collection[str] = (),
        remembers: Strategy | None = None,
    ) -> None:
        self.strategy = strategy
        self._remembers = strategy if remembers is None else remembers
        self._wanted = wanted
        self._failed = failed
        self._round_failed = round_failed
        self._metrics = metrics
        self._needs = needs_metrics
        self._layers: dict[str, Layer] = {}
        self._asked: dict[int, Message] = {}

    def summary(self) -> None:
        """The inner strategy's summary."""
        self.strategy.summary()

    # --- training ------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; remembers what the model looks like."""
        self._layers = layers_of(arrays)
        return self._remember(
            self.strategy.configure_train(server_round, arrays, config, grid),
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's model in the form that was sent, or ``(None, None)``."""
        checked: list[Message] = []
        numbers: list[Weighted] = []
        for reply in replies:
            if reply.has_content():
                problem = problem_with_update(reply.content, self._layers, self._needs)
                if problem is not None:
                    self._failed(reply.metadata.src_node_id, problem)
                    reply = self._refused(reply, problem)
                else:
                    arranged(reply.content, self._layers)
                    numbers.append(_take_metrics(reply, self._needs))
            checked.append(reply)
        self._asked = {}
        return self._aggregate(server_round, checked, numbers)

    def _aggregate(
        self, server_round: int, replies: list[Message], numbers: list[Weighted]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        # Also without a good reply: some strategies keep count of their rounds.
        usable = f"{len(numbers)} of {len(replies)} updates were usable"
        remembered = state_of(self._remembers)
        try:
            arrays, own = self.strategy.aggregate_train(server_round, replies)
            problem = None if arrays is None else problem_with_model(arrays, self._layers)
        except Exception as error:
            logger.debug("aggregation failed in round %d", server_round, exc_info=True)
            load_state_of(self._remembers, remembered)
            return self._no_model(f"aggregation failed: {_words(error)} ({usable})")
        if arrays is None:
            return self._no_model(f"nothing was aggregated: {usable}")
        if problem is not None:
            # A momentum that overflowed would spoil every round to come.
            load_state_of(self._remembers, remembered)
            return self._no_model(problem)
        return restored(arrays, self._layers), self._means("train", server_round, numbers, own)

    def _no_model(self, reason: str) -> tuple[None, None]:
        self._round_failed(reason)
        return None, None

    # --- evaluation ----------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages."""
        return self._remember(
            self.strategy.configure_evaluate(server_round, arrays, config, grid),
        )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Means over the clients that evaluated; whoever did not is left out.

        A client without ``evaluate`` is ordinary. Nothing here fails a round.
        """
        checked: list[Message] = []
        numbers: list[Weighted] = []
        for reply in replies:
            if reply.has_content():
                problem = _problem_with_evaluation(reply)
                if problem is not None:
                    reply = self._refused(reply, problem)
                else:
                    numbers.append(_take_metrics(reply, frozenset()))
            checked.append(reply)
        self._asked = {}
        own = None
        try:
            own = self.strategy.aggregate_evaluate(server_round, checked)
        except Exception as error:
            logger.debug("evaluation of round %d failed", server_round, exc_info=True)
            logger.warning("evaluation of round %d failed: %s", server_round, _words(error))
        return self._means("evaluate", server_round, numbers, own)

    # --- inside --------------------------------------------------------------------------------

    def _remember(self, messages: Iterable[Message]) -> list[Message]:
        """The messages, kept until their replies: an error is a reply to one of them."""
        sent = list(messages)
        self._asked = {message.metadata.dst_node_id: message for message in sent}
        return sent

    def _refused(self, reply: Message, reason: str) -> Message:
        asked = self._asked.get(reply.metadata.src_node_id, reply)
        return Message(Error(UNUSABLE_REPLY, reason), reply_to=asked)

    def _means(
        self,
        phase: Phase,
        server_round: int,
        numbers: list[Weighted],
        own: MetricRecord | None,
    ) -> MetricRecord | None:
        values, senders = weighted_means(numbers, self._wanted)
        self._metrics(Heard(phase, server_round, values, senders, len(numbers)))
        if own is None and not values:
            return None
        return MetricRecord({**(own or {}), **values})


def _take_metrics(reply: Message, needs: frozenset[str]) -> Weighted:
    """Leave the strategy its own metrics, and return the others.

    The record is replaced, not changed: whoever read the reply before may still hold it. Under one
    key for all replies: strategies compare them.
    """
    key, metrics = _metrics_of(reply)
    keep = needs | {EXAMPLES_KEY}
    del reply.content[key]
    reply.content["metrics"] = MetricRecord({n: v for n, v in metrics.items() if n in keep})
    numbers = numbers_of(metrics)
    return Weighted(numbers.examples, {n: v for n, v in numbers.values.items() if n not in needs})


def _metrics_of(reply: Message) -> tuple[str, MetricRecord]:
    """The reply's one MetricRecord and its key; the reply was checked to have one."""
    return next(
        (key, record) for key, record in reply.content.items() if type(record) is MetricRecord
    )


def _problem_with_evaluation(reply: Message) -> str | None:
    metrics = [record for record in reply.content.values() if type(record) is MetricRecord]
    if len(metrics) != 1:
        return f"{len(metrics)} sets of metrics instead of one"
    return problem_with_examples(metrics[0])


def _words(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
