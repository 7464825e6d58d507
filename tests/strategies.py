"""Hypothesis strategies for the records of `telemetry.domain`."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any, get_args

from hypothesis import strategies as st

from telemetry.domain import (
    CLIENT_BUCKETS_G,
    ROUND_STATUSES,
    Factors,
    Histogram,
    Lap,
    NoiseRecord,
    OnBudget,
    Outcome,
    Owner,
    ParticipantRecord,
    Phase,
    RejectionReason,
    ReportRecord,
    RoundRecord,
    RunInfo,
    Scope,
    Sensor,
    ServerPhase,
)
from telemetry.testing import RUN_ID, pseudonym_of

LARGEST_COUNT = 2**53


def amounts(largest: float = 1e12) -> st.SearchStrategy[float]:
    """Energies, emissions and the like: finite, never negative, 0 and the tiny included."""
    return st.floats(0, largest, allow_nan=False, allow_infinity=False)


def unknown_or(known: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The value, or None for unknown."""
    return st.none() | known


def counts() -> st.SearchStrategy[int]:
    """Whole numbers from 0 on."""
    return st.integers(0, LARGEST_COUNT)


def texts(largest: int = 40) -> st.SearchStrategy[str]:
    """Any text that a client can send, quotes, line ends and formulas included."""
    anything = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    return st.text(anything, max_size=largest)


def times() -> st.SearchStrategy[datetime]:
    """Aware times in many zones, to the microsecond."""
    zones = st.integers(-12 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))
    return st.datetimes(datetime(1990, 1, 1), datetime(2190, 1, 1), timezones=zones)  # noqa: DTZ001


def one_of(literal: Any) -> st.SearchStrategy[Any]:
    """One word of a `Literal`."""
    return st.sampled_from(get_args(literal))


def node_ids() -> st.SearchStrategy[str]:
    """Few different nodes, so that they meet again; as text, 10 stands before 2."""
    return st.integers(0, 12).map(str)


def factors() -> st.SearchStrategy[Factors]:
    """What turns energy into emissions."""
    return st.builds(
        Factors,
        server_carbon_intensity_g_per_kwh=amounts(2000),
        intensity_source=texts(),
        intensity_year=unknown_or(st.integers(1990, 2100)),
        country=unknown_or(st.sampled_from(["ESP", "FRA"])),
        pue=st.floats(1, 3),
        server_scope=one_of(Scope),
        server_sensor=one_of(Sensor),
        server_share=unknown_or(st.floats(0, 1)),
        network_kwh_per_gb=unknown_or(amounts(10)),
        impute_missing=st.booleans(),
    )


def laps() -> st.SearchStrategy[Lap]:
    """The server's energy in a phase, known or not."""
    return st.builds(
        Lap,
        phase=one_of(ServerPhase),
        wall_s=amounts(1e5),
        metered_s=amounts(1e5),
        energy_kwh=unknown_or(amounts(1e3)),
        cpu_kwh=unknown_or(amounts(1e3)),
        gpu_kwh=unknown_or(amounts(1e3)),
        ram_kwh=unknown_or(amounts(1e3)),
        prorated=st.booleans(),
        reason=unknown_or(texts()),
        machine_kwh=unknown_or(amounts(1e3)),
    )


def participants(node_id: str) -> st.SearchStrategy[ParticipantRecord]:
    """One client's part in a round."""
    return st.builds(
        ParticipantRecord,
        node_id=st.just(node_id),
        client=st.just(pseudonym_of(node_id)),
        train=st.booleans(),
        outcome=unknown_or(one_of(Outcome)),
        reason=unknown_or(texts()),
        examples=unknown_or(counts()),
        sent_at=unknown_or(times()),
        replied_at=unknown_or(times()),
        loopback=unknown_or(st.booleans()),
        bytes_to=unknown_or(counts()),
        bytes_from=unknown_or(counts()),
    )


def reports(node_id: str, phase: Phase, reported_round: int) -> st.SearchStrategy[ReportRecord]:
    """One report, accepted or rejected."""
    identity = {
        "node_id": st.just(node_id),
        "client": st.just(pseudonym_of(node_id)),
        "phase": st.just(phase),
        "reported_round": st.just(reported_round),
        "late": st.booleans(),
    }
    rejected = st.builds(
        ReportRecord,
        **identity,
        accepted=st.just(False),
        rejection=one_of(RejectionReason),
        rejected_value=unknown_or(texts(64)),
    )
    accepted = st.builds(
        ReportRecord,
        **identity,
        accepted=st.just(True),
        emissions_kg=amounts(1e3),
        energy_kwh=unknown_or(amounts(1e3)),
        cpu_kwh=unknown_or(amounts(1e3)),
        gpu_kwh=unknown_or(amounts(1e3)),
        ram_kwh=unknown_or(amounts(1e3)),
        duration_s=unknown_or(amounts(1e5)),
        started_at=unknown_or(times()),
        ended_at=unknown_or(times()),
        country=unknown_or(texts()),
        carbon_intensity_g_per_kwh=unknown_or(amounts(2000)),
        sensor=unknown_or(one_of(Sensor)),
        scope=unknown_or(texts()),
        host_id=unknown_or(st.sampled_from(["0123456789ab", "ba9876543210"])),
        tracker=unknown_or(texts()),
        schema_version=unknown_or(st.integers(-(2**63), 2**63 - 1)),
        dropped_fields=unknown_or(texts()),
        on_server_host=st.booleans(),
        counted_energy_kwh=unknown_or(amounts(1e3)),
        counted_emissions_kg=amounts(1e3),
        looks_cumulative=st.booleans(),
        outlier=st.booleans(),
    )
    return accepted | rejected


def metrics() -> st.SearchStrategy[dict[str, float]]:
    """Training metrics by name."""
    values = st.floats(allow_nan=False, allow_infinity=False)
    return st.dictionaries(texts(12), values, max_size=4)


def noises() -> st.SearchStrategy[NoiseRecord]:
    """The noise of a privacy mechanism."""
    return st.builds(NoiseRecord, noise_stdv=amounts(), distance=unknown_or(amounts()))


@st.composite
def rounds(draw: st.DrawFn, /, **fixed: Any) -> RoundRecord:
    """A round, open or closed, that a store takes; ``fixed`` fields are as given."""
    number = fixed.get("round", draw(st.integers(0, 5)))
    closed = fixed.get("closed", draw(st.booleans()))
    statuses = [status for status in ROUND_STATUSES if not closed or status != "running"]
    started_at = draw(times())
    nodes = draw(st.lists(node_ids(), unique=True, max_size=4))
    identities = st.tuples(node_ids(), one_of(Phase), st.integers(max(0, number - 1), number))
    facts: dict[str, Any] = {
        "run_id": RUN_ID,
        "round": number,
        "attempt": draw(st.integers(1, 2)),
        "revision": draw(st.integers(0, 3)),
        "closed": closed,
        "tracked": draw(st.booleans()),
        "status": draw(st.sampled_from(statuses)),
        "reason": draw(unknown_or(texts())),
        "started_at": started_at,
        "ended_at": started_at + timedelta(seconds=draw(amounts(1e6))),
        "connected": draw(unknown_or(counts())),
        "factors": draw(factors()),
        "participants": tuple(draw(participants(node)) for node in nodes),
        "reports": tuple(
            draw(reports(*identity))
            for identity in draw(st.lists(identities, unique=True, max_size=4))
        ),
        "reports_repeated": draw(counts()),
        "laps": tuple(draw(st.lists(laps(), max_size=4))),
        "train_metrics": draw(metrics()),
        "evaluate_metrics": draw(metrics()),
        "privacy_epsilon": draw(unknown_or(amounts(100))),
        "noise": draw(unknown_or(noises())),
    }
    return RoundRecord(**{**facts, **fixed})


def runs(**fixed: Any) -> st.SearchStrategy[RunInfo]:
    """What is fixed about a run; ``fixed`` fields are as given."""
    facts = {
        "run_id": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True),
        "run_name": texts(),
        "flower_run_id": unknown_or(counts().map(str)),
        "started_at": times(),
        "rounds_planned": unknown_or(st.integers(0, 10_000)),
        "strategy": texts(),
        "privacy": texts(),
        "tracked": st.booleans(),
        "factors": factors(),
        "server_host_id": unknown_or(texts()),
        "tracker": unknown_or(texts()),
        "value_metric": texts(),
        "budget_kg": unknown_or(amounts()),
        "on_budget": one_of(OnBudget),
        "client_rows": st.booleans(),
        "metric_names": st.lists(texts(), max_size=3).map(tuple),
        "software": st.dictionaries(texts(), texts(), max_size=3),
    }
    chosen = {**facts, **{name: st.just(value) for name, value in fixed.items()}}
    return st.builds(RunInfo, **chosen)


def owners() -> st.SearchStrategy[Owner]:
    """A few processes."""
    return st.integers(1, 3).map(lambda pid: Owner(host="test-host", pid=pid, token=f"{pid}.x"))


def histograms() -> st.SearchStrategy[Histogram]:
    """Distributions over the buckets."""
    size = len(CLIENT_BUCKETS_G) + 1
    buckets = st.lists(counts(), min_size=size, max_size=size).map(tuple)
    return st.builds(Histogram, counts=buckets, sum_g=amounts())
