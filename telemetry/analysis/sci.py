"""Software Carbon Intensity (ISO/IEC 21031:2024): SCI = ((E × I) + M) per R, in g CO2eq per R.

Of it the *operational* part, (E × I) per R: the run's measured emissions, which are energy × PUE ×
location-based carbon intensity, over the number of functional units. M, the share of making the
hardware, is not included, for nobody tells what the machines are; nor are estimates. As a rate it
takes the run as it is: with clients that did not report it may be too low.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from telemetry.analysis.value import Value
from telemetry.domain import GRAMS_PER_KG, ParticipantRecord, RoundSummary

Unit = Literal["run", "round", "client-round", "point", "1000-examples"]
UNITS: Final[tuple[Unit, ...]] = get_args(Unit)
UNIT_WORDS: Final[dict[Unit, str]] = {
    "run": "one training run",
    "round": "one round of training",
    "client-round": "one client's training in one round",
    "point": "one point (0.01) of the value metric, from its first value to its best",
    "1000-examples": "1,000 training examples that clients went through",
}
_EXAMPLES_PER_UNIT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A run's operational SCI for one functional unit."""

    unit: Unit
    count: float | None
    """How many units the run is; None where that is not known, and ``reason`` says why."""
    g_per_unit: float | None
    """None where the emissions or the count are unknown, or there is no unit at all."""
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """What is known of the examples that a run's clients trained on."""

    count: int
    unknown: int
    """Participations, failed ones left out, of which nobody knows how many examples they were."""


def examples_of(participants: Iterable[ParticipantRecord]) -> Examples:
    """Examples of the clients that trained, over all rounds; a failed client's are not counted."""
    trained = [p.examples for p in participants if p.train and p.outcome != "failed"]
    known = [count for count in trained if count is not None]
    return Examples(count=sum(known), unknown=len(trained) - len(known))


def scores(
    rounds: Sequence[RoundSummary],
    total_emissions_kg: float | None,
    value: Value | None,
    examples: Examples | None,
) -> tuple[Score, ...]:
    """The score of each unit, from a run's closed rounds and measured total.

    ``examples`` is None where the run keeps no rows of its clients.
    """
    played = {row.round for row in rounds if row.round > 0}
    trainings = sum(row.participants - row.failed for row in rounds)
    return (
        _score("run", total_emissions_kg, 1),
        _score("round", total_emissions_kg, len(played)),
        _score("client-round", total_emissions_kg, trainings),
        _point(total_emissions_kg, value),
        _examples(total_emissions_kg, examples),
    )


def _score(unit: Unit, total_emissions_kg: float | None, count: float) -> Score:
    if total_emissions_kg is None:
        return Score(unit=unit, count=count, g_per_unit=None, reason="no emissions are known")
    if not count:
        return Score(unit=unit, count=count, g_per_unit=None, reason="there was none")
    per_unit = total_emissions_kg * GRAMS_PER_KG / count
    if not math.isfinite(per_unit):
        return Score(unit=unit, count=count, g_per_unit=None, reason="next to none was gained")
    return Score(unit=unit, count=count, g_per_unit=per_unit)


def _point(total_emissions_kg: float | None, value: Value | None) -> Score:
    if value is None:
        return Score(unit="point", count=None, g_per_unit=None, reason="no round has this metric")
    return _score("point", total_emissions_kg, value.points)


def _examples(total_emissions_kg: float | None, examples: Examples | None) -> Score:
    unit: Unit = "1000-examples"
    if examples is None:
        why = "the run keeps no rows of its clients"
    elif examples.unknown:
        why = f"unknown for {examples.unknown} trainings of a client"
    else:
        return _score(unit, total_emissions_kg, examples.count / _EXAMPLES_PER_UNIT)
    return Score(unit=unit, count=None, g_per_unit=None, reason=why)
