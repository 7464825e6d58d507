"""Runs side by side: what they emitted against what they reached, and what makes that unfair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from telemetry.analysis.value import Step, Value, measured_kg, value_of
from telemetry.domain import RoundSummary, StoredRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One run of a comparison."""

    run: StoredRun
    rounds: int
    """Round numbers played."""
    total_kg: float | None
    """Measured emissions of closed rounds, kg CO2eq."""
    reported: int | None
    """Participations that reported; None where emissions are not tracked."""
    participants: int
    """Participations: train messages sent."""
    unmetered_rounds: int
    """Rounds, the set-up too, of which nothing of the server was metered."""
    value: Value | None
    reached: Step | None
    """The first round at the target; None without target, or where it was not reached."""
    on_front: bool
    """Whether no other run has less carbon and a better best value, or one of them at a tie."""
    traits: Mapping[str, str]
    """What the figures rest on, by topic (`Comparison.differences`)."""

    @property
    def coverage(self) -> float | None:
        """Reported ÷ participations; None for none, or untracked."""
        if self.reported is None or not self.participants:
            return None
        return self.reported / self.participants

    @property
    def comparable(self) -> bool:
        """Whether it can be on the front at all: total and best value are known."""
        return self.total_kg is not None and self.value is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs against one metric."""

    metric: str
    lower_is_better: bool | None
    """None where no run has the metric."""
    target: float | None
    contenders: tuple[Contender, ...]
    """In the order asked for."""

    @property
    def differences(self) -> Mapping[str, Mapping[str, str]]:
        """Topics in which the runs differ: topic → run id → what holds there."""
        topics = self.contenders[0].traits if self.contenders else {}
        return {
            topic: {c.run.run_id: c.traits[topic] for c in self.contenders}
            for topic in topics
            if len({c.traits[topic] for c in self.contenders}) > 1
        }


def compare(
    runs: Sequence[tuple[StoredRun, Sequence[RoundSummary]]],
    metric: str,
    *,
    lower_is_better: bool | None = None,
    target: float | None = None,
) -> Comparison:
    """Runs with their closed rounds, against ``metric``; the front is by total and best value."""
    values = [value_of(rounds, metric, lower_is_better=lower_is_better) for _, rounds in runs]
    front = pareto(
        [_point(measured_kg(run.totals), v) for (run, _), v in zip(runs, values, strict=True)]
    )
    return Comparison(
        metric=metric,
        lower_is_better=next((v.lower_is_better for v in values if v is not None), None),
        target=target,
        contenders=tuple(
            _contender(run, rounds, value, target, on_front)
            for (run, rounds), value, on_front in zip(runs, values, front, strict=True)
        ),
    )


def _point(total_kg: float | None, value: Value | None) -> tuple[float, float] | None:
    """Both less the better; None where one is unknown."""
    if total_kg is None or value is None:
        return None
    best = value.best.value
    return total_kg, best if value.lower_is_better else -best


def pareto(points: Sequence[tuple[float, float] | None]) -> list[bool]:
    """Which points are not dominated, less being better in both; None is never on the front."""
    known = [point for point in points if point is not None]
    return [point is not None and not any(_beats(o, point) for o in known) for point in points]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] <= other[1]


def _contender(
    run: StoredRun,
    rounds: Sequence[RoundSummary],
    value: Value | None,
    target: float | None,
    on_front: bool,
) -> Contender:
    tracked = run.info.tracked
    return Contender(
        run=run,
        rounds=len({row.round for row in rounds if row.round > 0}),
        total_kg=measured_kg(run.totals),
        reported=sum(row.reported or 0 for row in rounds) if tracked else None,
        participants=sum(row.participants for row in rounds),
        unmetered_rounds=sum(1 for row in rounds if row.server_emissions_kg is None),
        value=value,
        reached=None if value is None or target is None else value.reaching(target),
        on_front=on_front,
        traits=_traits(rounds, value),
    )


def _traits(rounds: Sequence[RoundSummary], value: Value | None) -> dict[str, str]:
    """Each topic in words that are equal exactly where the runs are alike in it."""
    reported = sum(row.reported or 0 for row in rounds)
    participants = sum(row.participants for row in rounds)
    metered = sum(1 for row in rounds if row.server_emissions_kg is not None)
    factors = [row.factors for row in rounds if row.host_energy_kwh is not None]

    def told(word: Callable[..., str]) -> str:
        return ", ".join(dict.fromkeys(word(item) for item in factors)) or "unknown"

    tracked = any(row.tracked for row in rounds)
    came = f"{reported / participants:.0%} of reports came" if participants else "nobody"
    metered_in = "all rounds" if metered == len(rounds) else f"{metered} of {len(rounds)} rounds"
    return {
        "coverage": came if tracked or not rounds else "not tracked",
        "server metered": metered_in if tracked or not rounds else "not tracked",
        "scope": told(lambda f: str(f.server_scope)),
        "sensor": told(lambda f: str(f.server_sensor)),
        "intensity": told(
            lambda f: f"{f.server_carbon_intensity_g_per_kwh:.4g} g/kWh ({f.intensity_source})"
        ),
        "PUE": told(lambda f: f"{f.pue:g}"),
        "metric from": "nowhere" if value is None else value.split,
    }
