"""From the facts of a round to its record: outcomes, rows and marks around the host rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from math import fsum
from operator import attrgetter
from typing import Final

from telemetry import marks
from telemetry.accounting.facts import ParticipantFacts, RoundFacts
from telemetry.accounting.host_rule import Neighbourhood, ServerMachine, apply_host_rule
from telemetry.accounting.judged import Accepted, Judged, first_of_each
from telemetry.domain import (
    Factors,
    Lap,
    Outcome,
    ParticipantRecord,
    Phase,
    ReportRecord,
    RoundRecord,
)
from telemetry.domain.frozen import in_order

_NAMES_PER_ROUND: Final = 32

_by_client: Final = attrgetter("node_id", "phase", "reported_round")
_participant_row: Final = in_order(ParticipantRecord)


def account(facts: RoundFacts) -> RoundRecord:
    """The round's record: outcomes, accepted and rejected reports, the host rule applied.

    The result does not depend on the order of the clients, and rejected reports change no figure.
    """
    judged, repeated = first_of_each(facts.reports, facts.rules) if facts.tracked else ([], 0)
    laps = tuple(facts.laps) if facts.tracked else ()
    started_at, ended_at = _time(facts.started_at), _time(max(facts.started_at, facts.ended_at))
    around = Neighbourhood(
        server=ServerMachine.of(
            laps, facts.factors.server_scope, (ended_at - started_at).total_seconds()
        ),
        factors=facts.factors,
        server_host_id=facts.server_host_id,
        loopback_on_server_host=facts.rules.loopback_on_server_host,
    )
    return RoundRecord(
        run_id=facts.run_id,
        round=facts.round,
        attempt=facts.attempt,
        revision=facts.revision,
        sequence=facts.sequence,
        closed=facts.closed,
        tracked=facts.tracked,
        status=facts.status,
        reason=None if facts.reason is None else facts.reason[:256],
        client_rows=facts.client_rows,
        started_at=started_at,
        ended_at=ended_at,
        connected=facts.connected,
        factors=_with_share(facts.factors, laps),
        participants=_participants(facts, judged),
        reports=_reports(facts, judged, around),
        reports_repeated=repeated,
        laps=laps,
        train_metrics=_bounded(facts.train_metrics),
        evaluate_metrics=_bounded(facts.evaluate_metrics),
        privacy_epsilon=facts.privacy_epsilon,
        noise=facts.noise,
    )


def _with_share(factors: Factors, laps: Sequence[Lap]) -> Factors:
    """The factors with the share of the machine that the server had in this round."""
    shared = [lap for lap in laps if lap.machine_kwh is not None and lap.energy_kwh is not None]
    whole = fsum(lap.machine_kwh or 0.0 for lap in shared)
    if whole <= 0:
        return factors
    return replace(
        factors, server_share=min(1.0, fsum(lap.energy_kwh or 0.0 for lap in shared) / whole)
    )


def _bounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """At most 32 names, alphabetically: what clients send must not grow without bound."""
    return {name: metrics[name] for name in sorted(metrics)[:_NAMES_PER_ROUND]}


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)


# --- clients ---------------------------------------------------------------------------------------


def _participants(facts: RoundFacts, judged: Iterable[Judged]) -> tuple[ParticipantRecord, ...]:
    """One row a client, by node."""
    said = _said(judged)
    time = lru_cache(maxsize=64)(_time)  # a message goes out to all at one instant
    return tuple(
        _participant_row(
            p.node_id,
            p.client,
            p.train,
            _outcome(p, said, tracked=facts.tracked),
            None if p.failed is None else p.failed[:256],
            p.examples,
            None if p.sent_at is None else time(p.sent_at),
            None if p.replied_at is None else _time(p.replied_at),
            p.loopback,
            p.bytes_to,
            p.bytes_from,
        )
        for p in sorted(facts.participants, key=attrgetter("node_id"))
    )


def _said(judged: Iterable[Judged]) -> dict[str, Outcome]:
    """What each client's report of its training in this round makes of it."""
    return {
        each.received.node_id: "reported" if isinstance(each, Accepted) else "rejected"
        for each in judged
        if each.received.phase == "train" and not each.received.late
    }


def _outcome(
    client: ParticipantFacts, said: Mapping[str, Outcome], *, tracked: bool
) -> Outcome | None:
    """Of a client that was sent a train message: failed > rejected > reported > missing.

    Where emissions are not tracked only failures are known.
    """
    if not client.train:
        return None
    if client.failed is not None:
        return "failed"
    return said.get(client.node_id, "missing") if tracked else None


# --- reports ---------------------------------------------------------------------------------------


def _reports(
    facts: RoundFacts, judged: Iterable[Judged], around: Neighbourhood
) -> tuple[ReportRecord, ...]:
    """One row a report, by client."""
    accepted: list[Accepted] = []
    rows: list[ReportRecord] = []
    for each in judged:
        if isinstance(each, Accepted):
            accepted.append(each)
        else:
            rows.append(each.row)
    rows += apply_host_rule(accepted, around)
    return tuple(sorted(_marked(rows, facts), key=_by_client))


def _marked(reports: Sequence[ReportRecord], facts: RoundFacts) -> list[ReportRecord]:
    """The same reports, those that look odd marked: see `telemetry.marks`."""
    values: dict[Phase, dict[int, float]] = {"train": {}, "evaluate": {}}
    for place, report in enumerate(reports):
        if report.accepted and not report.late and report.emissions_kg is not None:
            values[report.phase][place] = report.emissions_kg
    odd = marks.outliers(values["train"]) | marks.outliers(values["evaluate"])
    rising = {
        place
        for place, report in enumerate(reports)
        if report.energy_kwh is None and _is_running_total(report, facts)  # the first test is cheap
    }
    marked = list(reports)
    for place in odd | rising:
        marked[place] = replace(
            marked[place], outlier=place in odd, looks_cumulative=place in rising
        )
    return marked


def _is_running_total(report: ReportRecord, facts: RoundFacts) -> bool:
    if not marks.is_bare(report):
        return False
    return facts.history(report.node_id).then(report.emissions_kg or 0.0).looks_cumulative
