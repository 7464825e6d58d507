"""How a run stands: what the interface says of it beside its facts and its stored totals.

Nothing is worked out here that `/metrics` shows too: both ask `telemetry.exporters.samples`. Emissions
are kg CO2eq, energies kWh at the meter, before PUE; null is unknown and never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from telemetry.analysis.value import Value, value_of
from telemetry.domain import RoundSummary, StoredRun
from telemetry.exporters.run_json import method as method_members
from telemetry.exporters.samples import (
    RunView,
    budget_used_ratio,
    estimates_so_far_kg,
    metrics_of,
    sensor,
)
from telemetry.statement import statement

MODELLED: Final = frozenset({"model", "constant", "unknown"})
"""Sensors that are no measurement of the server's energy."""


class Metric(BaseModel):
    """One training metric of a round."""

    name: str
    split: str = Field(description="train or evaluate")
    value: float


class SoFar(BaseModel):
    """A run so far: its closed rounds of every attempt, and the open one. Of the last closed round
    from 1 on where a member says so."""

    model_config = ConfigDict(frozen=True)

    active: bool = Field(description="Running, and its server was heard of in the last minute.")
    silent: bool = Field(description="Running, and its server was not: it may have gone away.")
    round: int | None = Field(description="The newest round, open or closed; 0 is the set-up.")
    rounds_done: int = Field(description="Number of the last closed round.")
    server_sensor: str
    modelled: bool = Field(description="No sensor measured the server's energy.")
    emissions_kg: float | None = Field(description="Measured: server and clients.")
    server_emissions_kg: float | None
    clients_emissions_kg: float | None
    server_energy_kwh: float | None
    clients_energy_kwh: float | None
    phase_energy_kwh: dict[str, float | None] = Field(
        description="On the server's meter, before clients on its machine are split off."
    )
    communication_emissions_kg_estimated: float | None = Field(
        description="Beside the measured figure, as all estimates."
    )
    imputed_emissions_kg: float | None
    imputed_low_emissions_kg: float | None
    imputed_high_emissions_kg: float | None
    budget_used_ratio: float | None
    connected: int | None
    participants: int | None = Field(description="Of the last closed round.")
    reported: int | None = Field(description="Of the last closed round.")
    coverage: float | None = Field(description="Of the last closed round.")
    metrics: list[Metric] = Field(description="Of the last closed round, those on /metrics.")
    privacy_epsilon: float | None


def so_far(view: RunView) -> SoFar:
    """How the run stands at this moment."""
    run, opened, closed = view.exposed.run, view.exposed.open_round, view.last_closed
    totals = run.totals if opened is None else run.totals.plus(opened)
    estimates = estimates_so_far_kg(view)
    rows = list(view.rounds_newest_first)
    kind = sensor(view)
    return SoFar(
        active=view.active,
        silent=run.status == "running" and not view.active,
        round=rows[0].round if rows else None,
        rounds_done=sum(run.totals.rounds.values()) if closed is None else closed.round,
        server_sensor=kind,
        modelled=kind in MODELLED,
        emissions_kg=totals.total_emissions_kg,
        server_emissions_kg=totals.server_emissions_kg,
        clients_emissions_kg=totals.clients_emissions_kg,
        server_energy_kwh=totals.server_energy_kwh,
        clients_energy_kwh=totals.clients_energy_kwh,
        phase_energy_kwh={str(phase): kwh for phase, kwh in totals.phase_energy_kwh.items()},
        communication_emissions_kg_estimated=estimates["communication", "estimated", "central"],
        imputed_emissions_kg=estimates["clients", "imputed", "central"],
        imputed_low_emissions_kg=estimates["clients", "imputed", "low"],
        imputed_high_emissions_kg=estimates["clients", "imputed", "high"],
        budget_used_ratio=budget_used_ratio(view),
        connected=next((row.connected for row in rows if row.connected is not None), None),
        participants=None if closed is None else closed.participants,
        reported=None if closed is None else closed.reported,
        coverage=None if closed is None else closed.coverage,
        metrics=metrics_in(view, closed),
        privacy_epsilon=next(
            (row.privacy_epsilon for row in rows if row.privacy_epsilon is not None), None
        ),
    )


def metrics_in(view: RunView, row: RoundSummary | None) -> list[Metric]:
    """The training metrics of a round that ``/metrics`` shows, too."""
    found = () if row is None else metrics_of(row, view.metric_names)
    return [Metric(name=name, split=split, value=value) for (name, split), value in found]


class Best(BaseModel):
    """The best value of a run's ``value_metric`` and what had been emitted by then."""

    metric: str
    split: str
    value: float
    round: int
    spent_kg: float | None
    average_g_per_point: float | None = Field(
        description="Grams from the first value to the best ÷ points gained; a point is 0.01."
    )


class Account(BaseModel):
    """How a run's figures came about, over all of its closed rounds."""

    statement: str = Field(description="One paragraph, fit to be pasted into a paper.")
    method: dict[str, Any] = Field(description="The same facts, as in the json export.")
    best: Best | None


def account_of(run: StoredRun, rounds: Iterable[RoundSummary]) -> Account:
    """The account of a run with these closed rounds, in the order of (round, attempt)."""
    rows = list(rounds)
    return Account(
        statement=statement(run, rows),
        method=method_members(run, rows),
        best=_best(value_of(rows, run.info.value_metric)),
    )


def _best(value: Value | None) -> Best | None:
    if value is None:
        return None
    return Best(
        metric=value.metric,
        split=value.split,
        value=value.best.value,
        round=value.best.round,
        spent_kg=value.best.spent_kg,
        average_g_per_point=value.average_g_per_point,
    )
