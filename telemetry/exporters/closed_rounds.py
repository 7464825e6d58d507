"""Samples of closed rounds, which are the same from page to page until another round closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from telemetry.analysis.value import marginal_g_per_point
from telemetry.domain import GRAMS_PER_KG, JOULES_PER_KWH, RoundSummary
from telemetry.exporters.family import Labels, Sample
from telemetry.exporters.samples import RunView, by_label, metrics_of, one


class OfClosedRounds(ABC):
    """Samples of closed rounds alone: the same ones as long as those and the run's metrics are."""

    @abstractmethod
    def __call__(self, view: RunView) -> Iterator[Sample]:
        """The samples."""


class Marginal(OfClosedRounds):
    """Of the last closed round, where it made the model better than any before."""

    def __call__(self, view: RunView) -> Iterator[Sample]:
        """Grams per point, if it did."""
        return one(marginal_g_per_point(view.exposed.rounds, view.exposed.run.info.value_metric))


OfRound = Callable[[RoundSummary, Labels], Iterator[Sample]]
"""Samples of one round, without its number, given the names of the run's training metrics."""


@dataclass(frozen=True, slots=True)
class EachRound(OfClosedRounds):
    """Samples of each of them."""

    of_round: OfRound

    def __call__(self, view: RunView) -> Iterator[Sample]:
        """With the round's number as the first label."""
        names = view.metric_names
        for row in view.exposed.rounds:
            number = str(row.round)
            for labels, value in self.of_round(row, names):
                yield (number, *labels), value


def each_round(value: Callable[[RoundSummary], float | None], factor: float = 1.0) -> EachRound:
    """One figure of each."""

    def samples(row: RoundSummary, _: Labels) -> Iterator[Sample]:
        known = value(row)
        return one(None if known is None else known * factor)

    return EachRound(samples)


def _emissions_of_round(row: RoundSummary, _: Labels) -> Iterator[Sample]:
    """Grams by component."""
    parts = {"server": row.server_emissions_kg, "clients": row.clients_emissions_kg}
    return by_label(parts, GRAMS_PER_KG)


def _energy_of_round(row: RoundSummary, _: Labels) -> Iterator[Sample]:
    """Joules by component."""
    clients_kwh = row.clients_energy_kwh if row.clients_energy_reports else None
    parts = {"server": row.server_energy_kwh, "clients": clients_kwh}
    return by_label(parts, JOULES_PER_KWH)


marginal: Final = Marginal()
round_emissions: Final = EachRound(_emissions_of_round)
round_energy: Final = EachRound(_energy_of_round)
round_training: Final = EachRound(metrics_of)
