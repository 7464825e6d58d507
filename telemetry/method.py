"""How a run's figures came about: the facts that every account of its method is made of.

Pure functions of a stored run and its closed rounds. What the run's totals do not have (coverage,
marks, metered time) is added up over the rounds here, and nowhere else. `telemetry.statement` says
it in sentences, the ``json`` export in members.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Final

from telemetry.domain import (
    OnBudget,
    RoundStatus,
    RoundSummary,
    Scope,
    Sensor,
    StoredRun,
    sum_known,
)

ONE_MACHINE: Final = "reports of clients on one machine are scaled to the time they cover together"
ON_SERVER_HOST: Final[Mapping[Scope, str]] = {
    "machine": "clients on the server's machine are split off from the server's figure, not added "
    "to it",
    "allocation": "clients in the server's container are split off from its share, clients "
    "elsewhere on its machine are added, together no more than that share leaves of the machine",
    "process": "clients on the server's machine are added to the server's process, together no "
    "more than it leaves of the machine",
    "unknown": "clients on the server's machine are counted like those of any other",
}
"""By the scope of the server's figure."""
MODELLED: Final[frozenset[Sensor]] = frozenset({"model", "constant", "unknown"})
"""Sensors that are no measurement of the server's energy."""
MODELLED_NOTE: Final = "modelled; no power sensor on the server"
"""What every headline says where there was none."""
UNKNOWN: Final = "null is unknown and never 0; a total is the sum of its known parts"
SEAL_COVERS: Final = (
    "sha256 is over the canonical JSON of the run's facts, its end and every figure of its closed "
    "rounds with the digest of the rows that they were made from; null while the run goes on"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The facts behind a run's figures; what is about rounds is of its closed ones, all attempts."""

    tracked: bool
    software: Mapping[str, str]
    tracker: str | None
    server_metered: bool
    """Whether the server's meter gave any figure."""
    server_metered_share: float | None
    """Metered seconds ÷ seconds of the rounds."""
    server_sensors: tuple[Sensor, ...]
    """What the rounds' figures really rest on; where nothing was metered, what the run began with."""
    server_scope: Scope
    server_share: float | None
    server_shares: tuple[float, float] | None
    """Least and greatest share of the machine that the server had in a round."""
    server_carbon_intensity_g_per_kwh: float
    intensity_source: str
    intensity_year: int | None
    country: str | None
    pue: float
    network_kwh_per_gb: float | None
    impute_missing: bool
    rounds_played: int
    """Round numbers from 1 on, however often each was tried."""
    rounds_by_status: Mapping[RoundStatus, int]
    """Of those, by how the last attempt ended."""
    rounds_closed: int
    """Rows: every attempt, and the set-up."""
    rounds_repeated: int
    """Attempts after a round's first."""
    rounds_complete: int | None
    """Rows whose server was metered throughout and whose participants all reported."""
    participants: int
    reported: int | None
    missing: int | None
    rejected: int | None
    failed: int
    evaluate_reported: int | None
    clients_energy_reports: int | None
    """Reports that state energy, or whose energy could be derived."""
    clients_reported_emissions_kg: float | None
    """What the accepted reports said, before each machine was counted once."""
    clients_on_server_host: bool
    """Whether clients were split off the server's own figure in any round."""
    reports_flagged: int | None
    flagged_emissions_kg: float | None
    imputed_clients: int | None
    budget_kg: float | None
    on_budget: OnBudget
    client_rows: bool
    """False where no row of a client is kept, in any round."""
    rounds_without_client_rows: int


def method_of(run: StoredRun, rounds: Iterable[RoundSummary]) -> Method:
    """The facts of a run with these closed rounds, in the order of (round, attempt)."""
    rows = list(rounds)
    info, factors = run.info, run.info.factors
    metered = [row for row in rows if row.host_energy_kwh is not None]
    sensors = {row.factors.server_sensor for row in metered}
    shares = [s for row in metered if (s := row.factors.server_share) is not None]
    seconds = fsum(row.duration_s for row in rows)
    metered_s = fsum((row.metered_share or 0.0) * row.duration_s for row in rows)
    played = {row.round: row.status for row in rows if row.round > 0}
    without_rows = sum(1 for row in rows if not row.client_rows)
    return Method(
        tracked=info.tracked,
        software=info.software,
        tracker=info.tracker,
        # The totals of a pruned run still tell.
        server_metered=bool(metered) or run.totals.server_energy_kwh is not None,
        server_metered_share=metered_s / seconds if info.tracked and seconds > 0 else None,
        server_sensors=tuple(sorted(sensors)) or (factors.server_sensor,),
        server_scope=_scope(run, metered),
        server_share=factors.server_share,
        server_shares=(min(shares), max(shares)) if shares else None,
        server_carbon_intensity_g_per_kwh=factors.server_carbon_intensity_g_per_kwh,
        intensity_source=factors.intensity_source,
        intensity_year=factors.intensity_year,
        country=factors.country,
        pue=factors.pue,
        network_kwh_per_gb=factors.network_kwh_per_gb,
        impute_missing=factors.impute_missing,
        rounds_played=len(played),
        rounds_by_status=Counter(played.values()),
        rounds_closed=len(rows),
        rounds_repeated=sum(1 for row in rows if row.attempt > 1),
        rounds_complete=_count(None if row.complete is None else int(row.complete) for row in rows),
        participants=sum(row.participants for row in rows),
        reported=_count(row.reported for row in rows),
        missing=_count(row.missing for row in rows),
        rejected=_count(row.rejected for row in rows),
        failed=sum(row.failed for row in rows),
        evaluate_reported=_count(row.evaluate_reported for row in rows),
        clients_energy_reports=_count(row.clients_energy_reports for row in rows),
        clients_reported_emissions_kg=sum_known(
            row.clients_reported_emissions_kg for row in rows if row.client_histogram.count
        ),
        clients_on_server_host=any(map(_split, metered)),
        reports_flagged=_count(row.reports_flagged for row in rows),
        flagged_emissions_kg=sum_known(row.flagged_emissions_kg for row in rows),
        imputed_clients=_count(row.imputed_clients for row in rows),
        budget_kg=info.budget_kg,
        on_budget=info.on_budget,
        client_rows=info.client_rows and not without_rows,
        rounds_without_client_rows=without_rows,
    )


def _scope(run: StoredRun, metered: Sequence[RoundSummary]) -> Scope:
    """The run's; a meter that was not ready when the run started tells with the rounds."""
    told = (run.info.factors.server_scope, *(row.factors.server_scope for row in metered))
    return next((scope for scope in told if scope != "unknown"), "unknown")


def _split(row: RoundSummary) -> bool:
    whole, own = row.host_energy_kwh, row.server_energy_kwh
    return whole is not None and own is not None and own < whole


def _count(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


# --- the boundary --------------------------------------------------------------------------------


def boundary(method: Method) -> dict[str, Any]:
    """What is in a run's measured total and what is not, in words."""
    included, left_out = [], []
    if method.server_metered:
        included.append(_SERVER_IN[method.server_scope])
        if method.pue > 1:
            included.append("data centre overhead of the server, by the factor given as PUE")
    else:
        left_out.append("the server's electricity, of which nothing was metered")
    if method.server_metered and (beside := _BESIDE.get(method.server_scope)):
        left_out.append(beside)
    if method.tracked:
        included.append(
            "electricity of the clients' training and evaluation, as far as they report it"
        )
        left_out.append("clients that sent no valid report, and whatever a client did not measure")
    else:
        left_out.append("the clients' electricity, of which no report was read")
    return {
        "included": included,
        "not_included": [*left_out, *_NEVER_IN],
        "machines": f"{ONE_MACHINE}; {ON_SERVER_HOST[method.server_scope]}",
        "unknown": UNKNOWN,
    }


_SERVER_IN: Final[Mapping[Scope, str]] = {
    "machine": "electricity of the server's whole machine during the run, set-up and waiting "
    "included, as far as its meter sees it",
    "allocation": "electricity of the server's share of its machine during the run, set-up and "
    "waiting included, as far as its meter sees it",
    "process": "electricity of the server's process during the run, set-up and waiting included, "
    "as far as its meter sees it",
    "unknown": "electricity of the server during the run, set-up and waiting included, as far as "
    "its meter sees it",
}
_BESIDE: Final[Mapping[Scope, str]] = {
    "allocation": "the rest of the server's machine",
    "process": "the rest of the server's machine",
}
_NEVER_IN: Final = (
    "energy of data transfer over networks",
    "other machines that take part, such as relays, databases and dashboards",
    "data centre overhead of the clients, unless their own figures contain it",
    "manufacture, transport and disposal of hardware",
    "water",
    "time between an interruption and its resumption",
    "work before the run and use of the model after it",
)
