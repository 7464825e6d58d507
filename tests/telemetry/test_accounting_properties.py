"""What holds of every round, whatever its fleet did: random hosts, windows, holes and nonsense."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from math import fsum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.accounting import (
    ParticipantFacts,
    ReceivedReport,
    RoundFacts,
    Rules,
    account,
    overlap_factor,
)
from telemetry.accounting import window as worked
from telemetry.digest import run_sha256
from telemetry.domain import Lap, RoundSummary, RunTotals, field_names, metered_part
from telemetry.domain.evidence import rows_sha256
from telemetry.marks import BareHistory
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, START, make_report, make_run
from tests.telemetry.facts import FACTORS, SERVER_HOST, T0, node, report

ROUND_S = 60.0
NODES = ("0", "1", "2", "3", "4", "5", "10")
ESTIMATES = ("communication", "imputed", "estimated_total")
CLOSE = 1e-9
"""Relative: what sums of doubles may differ by."""

energies = st.sampled_from([0.0, 1e-9]) | st.floats(0, 0.05)
seconds = st.floats(-20, 80)
hosts = st.sampled_from([None, "a" * 12, "b" * 12, SERVER_HOST])


@st.composite
def wires(draw: st.DrawFn) -> dict[str, Any]:
    """What one client sends: bare, full, contradictory or nonsense."""
    sent: dict[str, Any] = {
        "emissions_kg": draw(st.floats(0, 0.01) | st.sampled_from([0, -0.0, -1, "x", True, 1e300]))
    }
    optional = {
        "schema": st.just(1),
        "energy_kwh": energies | st.sampled_from([-0.0, 1e9, "much"]),
        "cpu_kwh": energies,
        "started_at": seconds.map(lambda s: T0 + s),
        "ended_at": seconds.map(lambda s: T0 + s),
        "carbon_intensity_g_per_kwh": st.sampled_from([0.0, 50.0, 200.0, 5000.0]),
        "country": st.sampled_from(["ESP", "nowhere"]),
        "host_id": hosts,
    }
    for name, values in optional.items():
        if draw(st.booleans()):
            sent[name] = draw(values)
    return sent


@st.composite
def received(draw: st.DrawFn) -> ReceivedReport:
    """One report of some client, in time or late; its energy, if any, fits its emissions or not."""
    wire = draw(wires())
    amount = wire["emissions_kg"]
    if draw(st.booleans()) and isinstance(amount, float) and 0 <= amount < 1:
        wire |= {"energy_kwh": amount * 5, "carbon_intensity_g_per_kwh": 200.0}
    late = draw(st.sampled_from([False, False, False, True]))
    begin = draw(st.floats(0, 50))
    return report(
        draw(st.sampled_from(NODES)),
        wire.pop("emissions_kg"),
        phase=draw(st.sampled_from(["train", "train", "evaluate"])),
        late=late,
        reported_round=0 if late else 1,
        sent_at=T0 + begin,
        replied_at=T0 + begin + draw(st.floats(0, 10)),
        loopback=draw(st.booleans()),
        **wire,
    )


@st.composite
def laps(draw: st.DrawFn) -> Lap:
    """A lap that was metered, in part or not at all; of a machine or of a share of it."""
    wall_s = draw(st.floats(0, 30))
    own = draw(st.none() | energies)
    whole = draw(st.none() | energies)
    return Lap(
        phase=draw(st.sampled_from(["configure", "wait", "aggregate"])),
        wall_s=wall_s,
        metered_s=0.0 if own is None and whole is None else wall_s * draw(st.floats(0.01, 1)),
        energy_kwh=own,
        machine_kwh=whole,
    )


@st.composite
def participants(draw: st.DrawFn) -> ParticipantFacts:
    """One client's part, by a name that the round makes unique."""
    return node(
        draw(st.sampled_from(NODES)),
        train=draw(st.sampled_from([True, True, True, False])),
        failed=draw(st.sampled_from([None, None, "gone"])),
        examples=draw(st.none() | st.integers(0, 1000)),
        bytes_to=draw(st.none() | st.integers(0, 10**10)),
        bytes_from=draw(st.none() | st.integers(0, 10**10)),
    )


@st.composite
def rounds(draw: st.DrawFn) -> RoundFacts:
    """A closed round in any scope, estimates on or off, with clients that were seen before."""
    history = BareHistory()
    before = [make_report(name, draw(st.floats(0.0, 0.001))) for name in NODES[:3]]
    for times in range(draw(st.sampled_from([0, 4]))):
        history.add([replace(r, emissions_kg=(r.emissions_kg or 0.0) * times) for r in before])
    fleet = draw(st.lists(participants(), unique_by=lambda p: p.node_id, max_size=len(NODES)))
    reports = draw(st.lists(received(), max_size=12))
    if draw(st.booleans()):  # most of a fleet reports, so that there is something to impute from
        fleet = [node(name, examples=draw(st.integers(1, 1000))) for name in NODES]
        reports += [report(name, draw(st.floats(1e-6, 0.01))) for name in NODES[:-2]]
    return RoundFacts(
        run_id="20260102-030405-abcdef", round=1, attempt=1, revision=1, closed=True, tracked=True,
        status="completed", reason=None, started_at=T0, ended_at=T0 + ROUND_S, connected=None,
        factors=replace(
            FACTORS,
            server_scope=draw(st.sampled_from(["machine", "machine", "allocation", "process"])),
            pue=draw(st.sampled_from([1.0, 1.4])),
            network_kwh_per_gb=draw(st.none() | st.floats(0, 1)),
            impute_missing=draw(st.booleans()),
        ),
        server_host_id=SERVER_HOST,
        rules=Rules(loopback_on_server_host=draw(st.booleans())),
        participants=fleet,
        reports=reports,
        laps=draw(st.lists(laps(), max_size=4)),
        history=history.of,
        train_metrics=draw(
            st.dictionaries(st.sampled_from("ab"), st.sampled_from([-0.0, 0.1, 3.0]))
        ),
    )  # fmt: skip


def measured(row: RoundSummary) -> dict[str, Any]:
    """Every measured figure in kWh or kg."""
    names = [n for n in field_names(RoundSummary) if n.endswith(("_kwh", "_kg"))]
    names.remove("phase_energy_kwh")
    return {n: getattr(row, n) for n in names if not n.startswith(ESTIMATES)}


def whole(values: Sequence[float | None]) -> float:
    """Sum of the known."""
    return fsum(value for value in values if value is not None)


# --- sums ----------------------------------------------------------------------------------------


@given(rounds())
def test_parts_sum_to_totals(facts: RoundFacts) -> None:
    """Rows to clients, phases to the host, server and clients to the total, clients to buckets."""
    record = account(facts)
    row = record.summary()
    rows = [r for r in record.reports if r.accepted]
    assert whole([r.counted_emissions_kg for r in rows]) == pytest.approx(
        row.clients_emissions_kg or 0.0, rel=CLOSE
    )
    assert whole([r.counted_energy_kwh for r in rows]) == pytest.approx(
        row.clients_energy_kwh or 0.0, rel=CLOSE
    )
    parts = (row.server_emissions_kg, row.clients_emissions_kg)
    assert (row.total_emissions_kg is None) == (parts == (None, None))
    assert whole(parts) == pytest.approx(row.total_emissions_kg or 0.0, rel=CLOSE)
    phases = list(row.phase_energy_kwh.values())
    assert whole(phases) == pytest.approx(row.host_energy_kwh or 0.0, rel=CLOSE)
    assert row.client_histogram.count == len({r.node_id for r in rows})
    assert row.client_histogram.sum_g == pytest.approx(
        1000 * (row.clients_emissions_kg or 0.0), rel=CLOSE
    )
    arrived = (row.reports_accepted, row.reports_rejected, row.reports_repeated, row.reports_late)
    assert sum(arrived) == len(facts.reports)
    assert all(value is None or value >= 0 for value in measured(row).values())


@given(rounds())
def test_measured_figures_do_not_change_when_an_estimate_is_switched_on(facts: RoundFacts) -> None:
    """Nor do counts, outcomes or the evidence: all but the estimates themselves and the factors."""
    plain = replace(facts.factors, network_kwh_per_gb=None, impute_missing=False)
    off = account(replace(facts, factors=plain))
    for more in ({"network_kwh_per_gb": 0.05}, {"impute_missing": True}):
        on = account(replace(facts, factors=replace(plain, **more)))
        for name in field_names(RoundSummary):
            if name != "factors" and not name.startswith(ESTIMATES):
                assert getattr(on.summary(), name) == getattr(off.summary(), name), name
    row = off.summary()
    assert [getattr(row, n) for n in field_names(RoundSummary) if n.startswith(ESTIMATES)] == [None] * 6  # fmt: skip


@given(rounds())
def test_estimates_are_consistent(facts: RoundFacts) -> None:
    """Low ≤ central ≤ high, and the estimated total is the measured one and what was estimated."""
    row = account(facts).summary()
    imputed = row.imputed_emissions_kg
    if imputed is not None:
        assert row.imputed_low_emissions_kg is not None
        assert row.imputed_high_emissions_kg is not None
        assert row.imputed_low_emissions_kg <= imputed * (1 + CLOSE)
        assert imputed <= row.imputed_high_emissions_kg * (1 + CLOSE)
    if row.estimated_total_emissions_kg is not None:
        parts = (row.total_emissions_kg, imputed, row.communication_emissions_kg_estimated)
        assert row.estimated_total_emissions_kg == pytest.approx(whole(parts), rel=CLOSE)


@given(rounds())
def test_every_client_is_in_exactly_one_outcome(facts: RoundFacts) -> None:
    """The four counts add up to those who were to train; nobody else has an outcome."""
    record = account(facts)
    row = record.summary()
    to_train = {p.node_id for p in facts.participants if p.train}
    assert {p.node_id for p in record.participants if p.outcome is not None} == to_train
    counts = (row.reported, row.missing, row.rejected, row.failed)
    assert sum(count or 0 for count in counts) == row.participants == len(to_train)


# --- what must not matter --------------------------------------------------------------------------


@given(rounds(), st.randoms(use_true_random=False))
def test_the_order_of_replies_does_not_matter(facts: RoundFacts, rng: random.Random) -> None:
    """Marks included, to the last bit; of a client that repeats itself the first report counts."""
    queues: dict[Any, list[ReceivedReport]] = defaultdict(list)
    for each in facts.reports:
        queues[each.node_id, each.phase, each.reported_round].append(each)
    keys = [key for key, queue in queues.items() for _ in queue]
    rng.shuffle(keys)
    reports = [queues[key].pop(0) for key in keys]
    clients = list(facts.participants)
    rng.shuffle(clients)
    other = account(replace(facts, reports=reports, participants=clients))
    assert other == account(facts)
    assert other.evidence_sha256 == account(facts).evidence_sha256


@given(rounds(), received(), st.integers(0, 12), st.sampled_from([-1, "x", float("nan"), 1e300]))
def test_a_rejected_report_changes_no_total(
    facts: RoundFacts, more: ReceivedReport, place: int, nonsense: Any
) -> None:
    """From whom and when it may come: no figure in kWh or kg moves, no mark, no estimate."""
    rejected = replace(more, report=report("x", nonsense).report)
    reports = [*facts.reports[:place], rejected, *facts.reports[place:]]
    before, after = account(facts), account(replace(facts, reports=reports))
    assert measured(after.summary()) == measured(before.summary())
    assert after.accepted == before.accepted
    assert after.imputation == before.imputation
    assert after.summary().estimated_total_emissions_kg == (
        before.summary().estimated_total_emissions_kg
    )


# --- the host rule -------------------------------------------------------------------------------


@given(rounds())
def test_a_host_never_shows_more_than_its_meter(facts: RoundFacts) -> None:
    """On the server's: at most the meter's rate over the round. On any: at most what was said."""
    record = account(facts)
    ours = [
        r
        for r in record.accepted
        if r.host_id == SERVER_HOST
        or (r.host_id is None and _loopback(facts, r.node_id, r.phase, r.reported_round))
    ]
    inside = whole([r.counted_energy_kwh for r in ours if r.on_server_host])
    beside = whole([r.counted_energy_kwh for r in ours if not r.on_server_host])
    part = metered_part(facts.laps, ROUND_S)
    known = [lap.energy_kwh for lap in facts.laps if lap.energy_kwh is not None]
    machine = [lap.machine_kwh for lap in facts.laps if lap.machine_kwh is not None]
    if known and (machine or facts.factors.server_scope == "machine"):
        assert record.server_energy_kwh is not None
        together = record.server_energy_kwh + inside
        assert fsum(known) * (1 - CLOSE) <= together <= fsum(known) / part * (1 + CLOSE)
        if part == 1.0:
            assert together == pytest.approx(fsum(known), rel=CLOSE)
        if facts.factors.server_scope == "process":
            assert inside == 0
        if facts.factors.server_scope == "machine":
            assert beside == 0
        else:
            assert beside <= max(0.0, fsum(machine) - fsum(known)) / part * (1 + CLOSE)
    for each in record.accepted:
        assert each.counted_energy_kwh is None or each.counted_energy_kwh >= 0
        if not each.on_server_host:
            assert (each.counted_emissions_kg or 0.0) <= (each.emissions_kg or 0.0) * (1 + CLOSE)


def _loopback(facts: RoundFacts, *identity: Any) -> bool:
    """Whether the report that counts came from a loopback address that means this machine."""
    first = next(
        each
        for each in facts.reports
        if (each.node_id, each.phase, each.reported_round) == identity
        and account(replace(facts, reports=[each])).accepted
    )
    return bool(first.loopback) and facts.rules.loopback_on_server_host


spans = st.lists(st.tuples(seconds, st.floats(0.1, 40)), min_size=1, max_size=6)


@given(spans, st.floats(1, 1000))
def test_meters_of_one_machine_count_its_energy_once(
    windows: list[tuple[float, float]], power_w: float
) -> None:
    """A machine of steady power, watched by several clients: what it drew while any of them worked."""
    kwh_per_s = power_w / 3.6e6
    reports = [
        report(
            str(i), length_s * kwh_per_s * 0.2, energy_kwh=length_s * kwh_per_s,
            host_id="a" * 12, started_at=T0 + begin_s, ended_at=T0 + begin_s + length_s,
            sent_at=T0 - 100, replied_at=T0 + 200,
        )
        for i, (begin_s, length_s) in enumerate(windows)
    ]  # fmt: skip
    facts = RoundFacts(
        run_id="20260102-030405-abcdef", round=1, attempt=1, revision=1, closed=True, tracked=True,
        status="completed", reason=None, started_at=T0, ended_at=T0 + ROUND_S, connected=None,
        factors=FACTORS, server_host_id=SERVER_HOST, rules=Rules(), participants=(),
        reports=reports, laps=(),
    )  # fmt: skip
    ticks = sorted({edge for each in reports for edge in worked(each)})
    watched_s = fsum(
        after - before
        for before, after in pairwise(ticks)
        if any(w[0] <= before and after <= w[1] for w in map(worked, reports))
    )
    # Each edge of a window of 0.1 s, as a double of seconds since 1970, is known to 2.4e-6 of it.
    assert account(facts).clients_energy_kwh == pytest.approx(watched_s * kwh_per_s, rel=5e-5)


@given(spans)
def test_the_overlap_factor_is_a_share(windows: list[tuple[float, float]]) -> None:
    """From 1/n, where all are the same, to 1, where none overlap; order does not matter."""
    pairs = [(begin, begin + length) for begin, length in windows]
    factor = overlap_factor(pairs)
    assert 1 / len(pairs) * (1 - CLOSE) <= factor <= 1.0
    assert overlap_factor(pairs[::-1]) == factor


# --- evidence ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, ...]]:
    """One of each kind, for all examples: each example is a run of its own in it."""
    path = tmp_path_factory.mktemp("stores") / "one.db"
    opened = (open_store(f"sqlite:///{path}"), open_store("memory://"))
    yield opened
    for store in opened:
        store.close()


@settings(max_examples=25)
@given(rounds())
def test_the_seal_is_the_same_after_a_store(
    stores: tuple[Store, ...], run_ids: Iterator[str], facts: RoundFacts
) -> None:
    """Rows and figures that are read back have the digests of what was recorded, in each store."""
    record = account(replace(facts, run_id=next(run_ids)))
    info = make_run(record.run_id, factors=record.factors)
    row = record.summary(RunTotals().plus(record.summary()).total_emissions_kg)
    ours = run_sha256(info, "completed", None, START, [row])
    for store in stores:
        store.start_run(info, OWNER, START)
        store.record_round(record)
        store.finish_run(info.run_id, "completed", START)
        back = store.round(info.run_id, 1)
        assert back == record
        assert rows_sha256(back.participants, back.reports, back.laps) == record.evidence_sha256
        stored = store.run(info.run_id)
        again = run_sha256(stored.info, "completed", None, START, store.rounds(info.run_id))
        assert stored.sha256 == again == ours


@pytest.fixture(scope="module")
def run_ids() -> Iterator[str]:
    """Ids that were not used before."""
    return (f"run-{number}" for number in count())
