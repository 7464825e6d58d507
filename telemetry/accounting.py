"""The rules by which a round's figures come about, as pure functions.

`account` turns what happened in a round (`RoundFacts`) into a `RoundRecord`. It reads no clock, no
file and no configuration of its own. The rules, with a worked example, are in
``docs/accounting.md``; the host rule follows from one principle: *server and clients together never
exceed what one meter per host would show*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from math import fsum
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from telemetry import marks
from telemetry.domain import (
    GRAMS_PER_KG,
    Factors,
    Lap,
    NoiseRecord,
    Outcome,
    ParticipantRecord,
    Phase,
    ReportRecord,
    RoundRecord,
    RoundStatus,
    Scope,
    emissions_kg,
    field_names,
    metered_part,
    sum_known,
)
from telemetry.domain.frozen import in_order
from telemetry.reports import ClientReport, RejectedReport, plausible

WINDOW_SLACK_S: Final = 5.0
"""A client's window may exceed the server's send-to-reply window by this much at each end."""
_SERVER: Final = "server"
_NAMES_PER_ROUND: Final = 32
_PARTIAL_SCOPES: Final = ("process", "allocation")
"""Scopes of a report that is no whole machine's."""


def _no_history(_: str) -> marks.Rise:
    return marks.NO_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator may set about accounting."""

    max_client_power_w: float = 100_000.0
    loopback_on_server_host: bool = True
    """Whether a report without host from a loopback address ran on the server's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantFacts:
    """What the server knows of one client in one round; times are epoch seconds."""

    node_id: str
    client: str
    train: bool
    failed: str | None = None
    examples: int | None = None
    sent_at: float | None = None
    replied_at: float | None = None
    loopback: bool | None = None
    bytes_to: int | None = None
    bytes_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedReport:
    """One report as it arrived, with the server's own window of that client's work."""

    node_id: str
    client: str
    phase: Phase
    reported_round: int
    late: bool
    report: ClientReport | RejectedReport
    sent_at: float
    replied_at: float
    loopback: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFacts:
    """All that one attempt at a round is accounted from; reports in order of arrival."""

    run_id: str
    round: int
    attempt: int
    revision: int
    closed: bool
    tracked: bool
    status: RoundStatus
    reason: str | None
    started_at: float
    ended_at: float
    connected: int | None
    factors: Factors
    server_host_id: str | None
    rules: Rules
    participants: Sequence[ParticipantFacts]
    reports: Sequence[ReceivedReport]
    laps: Sequence[Lap]
    train_metrics: Mapping[str, float] = field(default_factory=dict)
    evaluate_metrics: Mapping[str, float] = field(default_factory=dict)
    privacy_epsilon: float | None = None
    noise: NoiseRecord | None = None
    client_rows: bool = True
    history: Callable[[str], marks.Rise] = _no_history
    """A node's bare values in earlier rounds (`telemetry.marks.BareHistory.of`)."""


def account(facts: RoundFacts) -> RoundRecord:
    """The round's record: outcomes, accepted and rejected reports, the host rule applied.

    The result does not depend on the order of the clients, and rejected reports change no figure.
    """
    judged, repeated = _first_of_each(facts) if facts.tracked else ([], 0)
    laps = tuple(facts.laps) if facts.tracked else ()
    started_at, ended_at = _time(facts.started_at), _time(max(facts.started_at, facts.ended_at))
    host = _Host.of(laps, facts.factors, (ended_at - started_at).total_seconds())
    reports = _marked(_apply_host_rule(judged, host, facts), facts)
    outcomes = _outcomes(facts.participants, judged) if facts.tracked else {}
    return RoundRecord(
        run_id=facts.run_id,
        round=facts.round,
        attempt=facts.attempt,
        revision=facts.revision,
        closed=facts.closed,
        tracked=facts.tracked,
        status=facts.status,
        reason=None if facts.reason is None else facts.reason[:256],
        client_rows=facts.client_rows,
        started_at=started_at,
        ended_at=ended_at,
        connected=facts.connected,
        factors=_with_share(facts.factors, laps),
        participants=_participants(facts.participants, outcomes),
        reports=tuple(sorted(reports, key=attrgetter("node_id", "phase", "reported_round"))),
        reports_repeated=repeated,
        laps=laps,
        train_metrics=_bounded(facts.train_metrics),
        evaluate_metrics=_bounded(facts.evaluate_metrics),
        privacy_epsilon=facts.privacy_epsilon,
        noise=facts.noise,
    )


# --- identity and validity -------------------------------------------------------------------


class _Accepted(NamedTuple):
    """A report that counts, with the window of its work, epoch seconds."""

    received: ReceivedReport
    raw: Mapping[str, Any]
    """Fields of its `ClientReport`, whose attribute look-ups take three times as long."""
    window: tuple[float, float]


class _Rejected(NamedTuple):
    """A report that does not count."""

    received: ReceivedReport
    report: RejectedReport


_Judged = _Accepted | _Rejected


def _first_of_each(facts: RoundFacts) -> tuple[list[_Judged], int]:
    """One report per (client, phase, round it was for), judged; and how many were repeats.

    The first accepted one counts; a rejected one stands only where none was accepted.
    """
    kept: dict[tuple[str, Phase, int], _Judged] = {}
    repeated = 0
    for received in facts.reports:
        key = (received.node_id, received.phase, received.reported_round)
        before = kept.get(key)
        if before is not None:
            repeated += 1
            if isinstance(before, _Accepted):
                continue
        judged = _judge(received, facts.rules)
        if before is None or isinstance(judged, _Accepted):
            kept[key] = judged
    return list(kept.values()), repeated


def _judge(received: ReceivedReport, rules: Rules) -> _Judged:
    if isinstance(received.report, RejectedReport):
        return _Rejected(received, received.report)
    worked = window(received)
    judged = plausible(received.report, worked[1] - worked[0], rules.max_client_power_w)
    if isinstance(judged, RejectedReport):
        return _Rejected(received, judged)
    return _Accepted(received, judged.__dict__, worked)


def window(received: ReceivedReport) -> tuple[float, float]:
    """When the client worked, epoch seconds: its own word clipped to what the server saw.

    The server's send-to-reply window stands in where the client gave none, or where its own is
    reversed or empty after clipping.
    """
    sent_at, replied_at = received.sent_at, received.replied_at
    raw = received.report.__dict__  # see `telemetry.reports.plausible`
    started_at, ended_at = raw["started_at"], raw["ended_at"]
    if started_at is not None and ended_at is not None:
        start, end = started_at.timestamp(), ended_at.timestamp()
        if start < sent_at - WINDOW_SLACK_S:
            start = sent_at - WINDOW_SLACK_S
        if end > replied_at + WINDOW_SLACK_S:
            end = replied_at + WINDOW_SLACK_S
        if end > start:
            return start, end
    return sent_at, max(sent_at, replied_at)


# --- outcomes ----------------------------------------------------------------------------------


def _outcomes(
    participants: Iterable[ParticipantFacts], judged: Iterable[_Judged]
) -> dict[str, Outcome]:
    """Outcome of each client that was sent a train message: failed > rejected > reported > missing."""
    word: dict[str, Outcome] = {
        j.received.node_id: "reported" if isinstance(j, _Accepted) else "rejected"
        for j in judged
        if j.received.phase == "train" and not j.received.late
    }
    return {
        p.node_id: "failed" if p.failed is not None else word.get(p.node_id, "missing")
        for p in participants
        if p.train
    }


# --- the host rule -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    """What the server's meter says about the machine that the server runs on, kWh."""

    whole_kwh: float
    """The machine's energy in the metered part of the round."""
    server_kwh: float
    """What of it is the server's: all of it in machine scope, before clients are split off."""
    metered: float
    """That part, as a share of the round."""
    scope: Scope
    """``machine``: clients on this machine are parts of the server's figure. ``allocation``: those in
    its container are. ``process``: none is."""

    @classmethod
    def of(cls, laps: Sequence[Lap], factors: Factors, duration_s: float) -> _Host | None:
        """None where nothing is known of the whole machine."""
        scope = factors.server_scope
        whole = sum_known(lap.energy_kwh if scope == "machine" else lap.machine_kwh for lap in laps)
        own = sum_known(lap.energy_kwh for lap in laps)
        if whole is None or own is None:
            return None
        metered = metered_part(laps, duration_s)
        return cls(whole_kwh=whole, server_kwh=own, metered=metered, scope=scope)

    @property
    def share(self) -> float:
        """The server's part of the machine."""
        return min(1.0, self.server_kwh / self.whole_kwh) if self.whole_kwh > 0 else 1.0

    @property
    def most_inside_kwh(self) -> float:
        """What clients in the server's figure can have used in the whole round, at most.

        Their windows reach over the round, the meter saw a part of it: the machine is taken to have
        drawn as much in the rest.
        """
        return self.server_kwh / self.metered

    @property
    def most_beside_kwh(self) -> float:
        """The same of clients on this machine that are not in the server's figure."""
        return max(0.0, self.whole_kwh - self.server_kwh) / self.metered

    def holds(self, each: _Accepted) -> bool:
        """Whether the server's figure holds what this client on the server's machine used.

        A loopback address is of the same network namespace: of the same container.
        """
        inside = self.scope == "allocation" and bool(each.received.loopback)
        return self.scope == "machine" or inside


def _with_share(factors: Factors, laps: Sequence[Lap]) -> Factors:
    """The factors with the share of the machine that the server had in this round."""
    shared = [lap for lap in laps if lap.machine_kwh is not None and lap.energy_kwh is not None]
    whole = fsum(lap.machine_kwh or 0.0 for lap in shared)
    if whole <= 0:
        return factors
    return replace(
        factors, server_share=min(1.0, fsum(lap.energy_kwh or 0.0 for lap in shared) / whole)
    )


def _apply_host_rule(
    judged: Sequence[_Judged], server: _Host | None, facts: RoundFacts
) -> list[ReportRecord]:
    """Each report with what it counts for, so that no host counts twice."""
    hosts: dict[str | None, list[_Accepted]] = defaultdict(list)
    rows: list[ReportRecord] = []
    for each in judged:
        if isinstance(each, _Rejected):
            rows.append(_rejected(each))
        else:
            hosts[_host_of(each, facts)].append(each)
    for host, members in hosts.items():
        if host is None:  # nobody knows which machine: each is counted in full
            rows += [_scaled(each, 1.0) for each in members]
        elif host == _SERVER and server is not None:
            inside = [each for each in members if server.holds(each)]
            beside = [each for each in members if not server.holds(each)]
            rows += _split_off(inside, server, facts.factors) if inside else []
            rows += _beside(beside, server.most_beside_kwh, facts.factors) if beside else []
        else:
            rows += _shared_host(members)
    return rows


def _host_of(each: _Accepted, facts: RoundFacts) -> str | None:
    host_id: str | None = each.raw["host_id"]
    if host_id is not None:
        return _SERVER if host_id == facts.server_host_id else host_id
    if each.received.loopback and facts.rules.loopback_on_server_host:
        return _SERVER
    return None


def overlap_factor(windows: Sequence[tuple[float, float]]) -> float:
    """Union of the windows ÷ their sum: what machine-wide meters that ran side by side overstate by.

    1 for disjoint windows, 1/n for n equal ones (of no length, too).
    """
    if len(windows) == 1:
        return 1.0
    by_start = sorted(windows)  # also: the sums below do not depend on who replied first
    total_s = union_s = 0.0
    start, end = by_start[0]
    for window_start, window_end in by_start:
        total_s += window_end - window_start
        if window_start > end:
            union_s += end - start
            start, end = window_start, window_end
        elif window_end > end:
            end = window_end
    union_s += end - start
    return 1.0 / len(windows) if total_s <= 0 else min(1.0, union_s / total_s)


def _overlap(members: Sequence[_Accepted]) -> float:
    """What reports of one host are scaled by, each taken for its whole machine's.

    Not where all of them say that they are parts of it (``process``, ``allocation``): parts add up.
    A report of nothing claims no energy, so it has no overlap with anybody's.
    """
    if all(each.raw["scope"] in _PARTIAL_SCOPES for each in members):
        return 1.0
    claims = [m.window for m in members if m.raw["emissions_kg"] > 0 or m.raw["energy_kwh"]]
    return overlap_factor(claims) if claims else 1.0


def _shared_host(members: Sequence[_Accepted]) -> list[ReportRecord]:
    """Reports from one host that is not the server's, or whose own meter is unknown."""
    factor = _overlap(members)
    return [_scaled(each, factor) for each in members]


def _scaled(each: _Accepted, factor: float) -> ReportRecord:
    energy_kwh = each.raw["energy_kwh"]
    counted_kwh = None if energy_kwh is None else energy_kwh * factor
    return _counted(each, counted_kwh, each.raw["emissions_kg"] * factor)


def _split_off(members: Sequence[_Accepted], server: _Host, factors: Factors) -> list[ReportRecord]:
    """Reports that the server's own figure holds: parts of it, not additions to it.

    They are of the whole machine; where the server's figure is a share of it, so is theirs.
    """
    factor = _overlap(members) * server.share
    most_kwh = server.most_inside_kwh
    energies = [_energy_kwh(each.raw, factors) * factor for each in members]
    claimed = fsum(energies)
    scale = min(1.0, most_kwh / claimed) if claimed > 0 else 0.0
    return [
        _counted(each, energy * scale, emissions_kg(energy * scale, factors), on_server_host=True)
        for each, energy in zip(members, energies, strict=True)
    ]


def _beside(members: Sequence[_Accepted], most_kwh: float, factors: Factors) -> list[ReportRecord]:
    """Reports from the server's own host where the server's figure is a share of the machine's.

    They are added to it, but together they are no more than what the share leaves of the machine.
    """
    factor = _overlap(members)
    claimed = fsum(_energy_kwh(each.raw, factors) * factor for each in members)
    if claimed > most_kwh:
        factor *= most_kwh / claimed
    return [_scaled(each, factor) for each in members]


def _energy_kwh(raw: Mapping[str, Any], factors: Factors) -> float:
    """A report's energy; where it states none, converted from its emissions."""
    energy_kwh: float | None = raw["energy_kwh"]
    if energy_kwh is not None:
        return energy_kwh
    intensity: float = (
        raw["carbon_intensity_g_per_kwh"] or factors.server_carbon_intensity_g_per_kwh
    )
    emissions_kg: float = raw["emissions_kg"]
    return emissions_kg * GRAMS_PER_KG / intensity if intensity > 0 else 0.0


# --- marks ---------------------------------------------------------------------------------------


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


# --- rows ----------------------------------------------------------------------------------------

_report: Final = in_order(ReportRecord)
_participant_row: Final = in_order(ParticipantRecord)


def _participants(
    participants: Iterable[ParticipantFacts], outcomes: Mapping[str, Outcome]
) -> tuple[ParticipantRecord, ...]:
    """One row a client, by node."""
    time = lru_cache(maxsize=64)(_time)  # a message goes out to all at one instant
    return tuple(
        _participant_row(
            p.node_id,
            p.client,
            p.train,
            "failed" if p.failed is not None and p.train else outcomes.get(p.node_id),
            None if p.failed is None else p.failed[:256],
            p.examples,
            None if p.sent_at is None else time(p.sent_at),
            None if p.replied_at is None else _time(p.replied_at),
            p.loopback,
            p.bytes_to,
            p.bytes_from,
        )
        for p in sorted(participants, key=attrgetter("node_id"))
    )


def _rejected(each: _Rejected) -> ReportRecord:
    received, rejected = each
    return ReportRecord(
        node_id=received.node_id,
        client=received.client,
        phase=received.phase,
        reported_round=received.reported_round,
        late=received.late,
        accepted=False,
        rejection=rejected.reason,
        rejected_value=rejected.value,
    )


def _counted(
    each: _Accepted,
    energy_kwh: float | None,
    counted_emissions_kg: float,
    *,
    on_server_host: bool = False,
) -> ReportRecord:
    received, raw, _ = each
    dropped = raw["dropped_fields"]
    return _report(
        received.node_id,
        received.client,
        received.phase,
        received.reported_round,
        received.late,
        True,  # accepted
        None,  # rejection
        None,  # rejected_value
        *_as_sent(raw),
        ",".join(dropped) if dropped else None,
        on_server_host,
        energy_kwh,
        counted_emissions_kg,
    )


_SENT_FIELDS: Final = field_names(ReportRecord)[
    field_names(ReportRecord).index("emissions_kg") : field_names(ReportRecord).index(
        "dropped_fields"
    )
]
"""What a row takes over from the report as it was sent, in the row's order."""
_as_sent: Final = itemgetter(*_SENT_FIELDS)


def _bounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """At most 32 names, alphabetically: what clients send must not grow without bound."""
    return {name: metrics[name] for name in sorted(metrics)[:_NAMES_PER_ROUND]}


def _time(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, UTC)
