"""The contract of `telemetry.store.base.Store` as tests; every backend runs them.

A subclass gives the fixture ``store``: an empty store, asserted on exit to hold no connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from telemetry.digest import run_sha256
from telemetry.domain import (
    ExposedRun,
    Owner,
    RoundRecord,
    RowlessRound,
    RunEnd,
    RunTotals,
    StoredRun,
)
from telemetry.errors import (
    RoundConflict,
    RowsNotKept,
    RunDeleted,
    RunExists,
    RunIsLive,
    RunNotFound,
    RunNotResumable,
    StoreError,
)
from telemetry.store.base import LEASE_EXPIRES_S, Store
from telemetry.testing import OWNER, RUN_ID, START, make_lap, make_report, make_round, make_run
from tests import strategies

SERVICE = "https://telemetry.example"
OTHER = Owner(host="test-host", pid=2, token="2.made-up")
EXPIRED = START + timedelta(seconds=LEASE_EXPIRES_S + 1)
IN_TIME = START + timedelta(seconds=LEASE_EXPIRES_S)


def at(minutes: float) -> Any:
    """A time after `START`."""
    return START + timedelta(minutes=minutes)


def everybody_lives(_: Owner) -> bool:
    """No owner is known to be gone."""
    return True


def nobody_lives(_: Owner) -> bool:
    """Every owner is gone."""
    return False


def totals_of(*records: RoundRecord) -> RunTotals:
    """What the totals must be when these rounds were closed in this order."""
    totals = RunTotals()
    for record in records:
        totals = totals.plus(record.summary())
    return totals


def ended_run(store: Store, run_id: str, minute: float, owner: Owner = OWNER) -> None:
    """A released run that began and ended in those minutes."""
    store.start_run(make_run(run_id, started_at=at(minute)), owner, at(minute))
    store.record_round(make_round(1, run_id=run_id))
    store.finish_run(run_id, "completed", at(minute + 0.5))
    store.release(run_id, owner)


def seal_of(store: Store, run_id: str) -> str:
    """The seal that a run's stored figures have."""
    run: StoredRun = store.run(run_id)
    assert run.ended_at is not None
    return run_sha256(run.info, run.status, run.reason, run.ended_at, store.rounds(run_id))


def shown(store: Store, owner: Owner | None = OWNER, now=START, max_runs=5, max_rounds=5):
    """``exposed`` with limits that do not matter."""
    return store.exposed(now, owner, max_runs=max_runs, max_rounds=max_rounds)


def names_of(exposed: Sequence[ExposedRun]) -> list[str]:
    """Ids of the runs that are shown."""
    return [one.run.run_id for one in exposed]


class StoreContract:
    """Every sentence of the contract, once."""

    @pytest.fixture
    def started(self, store: Store) -> Store:
        """A store with one running run of `OWNER`."""
        store.start_run(make_run(), OWNER, START)
        return store

    # --- the store as a whole ------------------------------------------------------------------

    def test_writes_from_many_threads_all_count(self, started: Store):
        """Rounds recorded by many threads at once are all stored and all in the totals."""
        records = [make_round(n, server_kwh=0.5**n) for n in range(1, 41)]
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(started.record_round, records))
        assert [s.round for s in started.rounds(RUN_ID)] == list(range(1, 41))
        totals = started.run(RUN_ID).totals
        assert totals.rounds == {"completed": 40}
        assert totals.server_energy_kwh == pytest.approx(1.0, rel=1e-9)

    def test_what_was_returned_is_not_changed_by_later_writes(self, started: Store):
        """A run, a round and a started stream keep what they said."""
        started.record_round(make_round(1))
        run, record = started.run(RUN_ID), started.round(RUN_ID, 1)
        before = replace(run), record.model_copy()
        started.record_round(make_round(2))
        started.finish_run(RUN_ID, "failed", at(5))
        assert (run, record) == before

    @pytest.mark.parametrize(
        "use",
        [
            lambda s: s.renew_lease("other", OWNER, START),
            lambda s: s.record_round(make_round(1, run_id="other")),
            lambda s: s.add_late_reports("other", 1),
            lambda s: s.finish_run("other", "failed", START),
            lambda s: s.release("other", OWNER),
            lambda s: s.resume_run("other", OWNER, START),
            lambda s: s.run("other"),
            lambda s: s.rounds("other"),
            lambda s: s.round("other", 1),
            lambda s: s.reports("other"),
            lambda s: s.participants("other"),
        ],
    )
    def test_an_unknown_run_is_not_found(self, started: Store, use: Callable[[Store], Any]):
        """Every method says so at once, and names the runs that are there."""
        with pytest.raises(RunNotFound, match="'other'") as caught:
            use(started)
        assert caught.value.candidates == (RUN_ID,)
        assert caught.value.where == started.url

    def test_the_secret_is_long_and_stays(self, store: Store):
        """The key of the pseudonyms has 32 bytes and is the same each time."""
        assert len(store.secret) == 32
        assert store.secret == store.secret

    def test_closing_twice_is_harmless(self, store: Store):
        """A store may be closed again."""
        store.close()
        store.close()

    # --- runs ----------------------------------------------------------------------------------

    def test_a_new_run_is_running_and_held(self, store: Store):
        """A started run has its facts, its owner, a lease from now on and empty totals."""
        store.start_run(make_run(), OWNER, at(1))
        run = store.run(RUN_ID)
        assert run.info == make_run()
        assert (run.status, run.reason, run.ended_at) == ("running", None, None)
        assert (run.owner, run.last_seen_at) == (OWNER, at(1))
        assert run.totals == RunTotals()

    def test_starting_a_run_again_changes_nothing(self, started: Store):
        """The same facts again, even from another owner, leave the run as it is."""
        before = started.run(RUN_ID)
        started.start_run(make_run(), OTHER, at(1))
        assert started.run(RUN_ID) == before

    def test_other_facts_under_one_id_are_refused(self, started: Store):
        """A run cannot be taken over by another one with its id."""
        before = started.run(RUN_ID)
        with pytest.raises(RunExists, match=RUN_ID):
            started.start_run(make_run(strategy="FedAdam"), OWNER, START)
        assert started.run(RUN_ID) == before

    def test_runs_come_newest_start_first(self, store: Store):
        """Whatever the order in which they were stored."""
        for minute in (2, 3, 1):
            store.start_run(make_run(f"run-{minute}", started_at=at(minute)), OWNER, START)
        assert [run.run_id for run in store.runs()] == ["run-3", "run-2", "run-1"]
        assert store.runs()[0] == store.run("run-3")

    def test_an_owner_renews_its_lease(self, started: Store):
        """The owner is heard of now."""
        assert started.renew_lease(RUN_ID, OWNER, at(1)) is True
        assert started.run(RUN_ID).last_seen_at == at(1)

    def test_nobody_else_renews_a_lease(self, started: Store):
        """Another process changes nothing and is told so."""
        assert started.renew_lease(RUN_ID, OTHER, at(1)) is False
        assert started.run(RUN_ID).last_seen_at == START

    def test_a_lease_that_is_gone_is_not_renewed(self, started: Store):
        """After its release the owner holds the run no more."""
        started.release(RUN_ID, OWNER)
        assert started.renew_lease(RUN_ID, OWNER, at(1)) is False
        assert started.run(RUN_ID).last_seen_at == START

    def test_an_ended_run_keeps_its_owner_until_release(self, started: Store):
        """While its page lingers a run is still held, and its lease renewed."""
        started.finish_run(RUN_ID, "failed", at(1), "no clients")
        run = started.run(RUN_ID)
        assert (run.status, run.ended_at, run.reason) == ("failed", at(1), "no clients")
        assert run.owner == OWNER
        assert started.renew_lease(RUN_ID, OWNER, at(2)) is True
        started.release(RUN_ID, OWNER)
        assert started.run(RUN_ID).owner is None

    def test_a_run_ends_once(self, started: Store):
        """The first end stands."""
        started.finish_run(RUN_ID, "completed", at(1))
        started.finish_run(RUN_ID, "failed", at(2), "too late")
        run = started.run(RUN_ID)
        assert (run.status, run.ended_at, run.reason) == ("completed", at(1), None)

    def test_a_run_does_not_end_as_running(self, started: Store):
        """That is a slip of the caller."""
        with pytest.raises(ValueError, match="running"):
            started.finish_run(RUN_ID, "running", at(1))

    def test_only_the_owner_releases(self, started: Store):
        """Another process's release is a no-op."""
        started.release(RUN_ID, OTHER)
        assert started.run(RUN_ID).owner == OWNER

    @pytest.mark.parametrize("status", ["failed", "interrupted", "stopped_on_budget"])
    def test_a_run_that_ended_early_is_taken_up_by_another_owner(self, started: Store, status):
        """It runs again under the new owner, with the rounds and totals that it had."""
        record = make_round(1, clients={"1": 0.5})
        started.record_round(record)
        started.finish_run(RUN_ID, status, at(1), "no clients")
        started.resume_run(RUN_ID, OTHER, at(2))
        run = started.run(RUN_ID)
        assert (run.status, run.ended_at, run.reason) == ("running", None, None)
        assert (run.owner, run.last_seen_at) == (OTHER, at(2))
        assert run.totals == totals_of(record)
        assert started.renew_lease(RUN_ID, OWNER, at(3)) is False
        started.finish_run(RUN_ID, "completed", at(4))
        assert started.run(RUN_ID).status == "completed"

    def test_a_round_that_an_ended_run_left_open_is_closed_when_it_is_taken_up(self, started):
        """A new attempt begins: the lost one keeps what was last stored of it, as interrupted."""
        started.record_round(make_round(3, closed=False, status="running", clients={"1": 0.5}))
        started.finish_run(RUN_ID, "failed", at(1))
        started.resume_run(RUN_ID, OTHER, at(2))
        (row,) = started.rounds(RUN_ID)
        assert (row.round, row.attempt, row.status) == (3, 1, "interrupted")
        assert started.record_round(make_round(3, attempt=2)) is True

    @pytest.mark.parametrize("status", ["running", "completed"])
    def test_a_run_that_goes_on_or_is_complete_is_not_taken_up(self, started: Store, status):
        """Nothing is changed, and the message says what it is."""
        if status == "completed":
            started.finish_run(RUN_ID, "completed", at(1))
        before = started.run(RUN_ID)
        with pytest.raises(RunNotResumable, match=f"{RUN_ID} is {status}"):
            started.resume_run(RUN_ID, OTHER, at(2))
        assert started.run(RUN_ID) == before

    # --- rounds --------------------------------------------------------------------------------

    def test_a_round_comes_back_equal(self, started: Store):
        """Participants, reports and laps keep their order, values their type, unknown stays None."""
        record = make_round(
            1,
            clients={"9": 0.0, "10": "missing", "2": "not_finite", "1": "failed"},
            laps=(make_lap(0.0, phase="wait"), make_lap(None, phase="setup")),
            train_metrics={"z": 1.0, "a": -0.5},
            evaluate_metrics={"accuracy": 0.1 + 0.2},
        )
        assert started.record_round(record) is True
        assert started.round(RUN_ID, 1) == record

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(info=strategies.runs(), data=strategies.rounds())
    def test_any_record_comes_back_equal(self, store: Store, info, data):
        """What is recorded is what is read, whole and as a flat row, for any run and round."""
        info = info.model_copy(update={"run_id": f"{info.run_id}-{len(store.runs())}"})
        record = data.model_copy(update={"run_id": info.run_id})
        store.start_run(info, OWNER, START)
        store.record_round(record)
        run = store.run(info.run_id)
        assert run.info == info
        assert run.totals == (totals_of(record) if record.closed else RunTotals())
        assert store.round(info.run_id, record.round, record.attempt) == record
        total = run.totals.total_emissions_kg
        assert list(store.rounds(info.run_id, closed_only=False)) == [record.summary(total)]

    def test_a_newer_revision_replaces_an_open_round(self, started: Store):
        """Nothing of the older one is left."""
        older = make_round(1, closed=False, clients={"1": 0.5, "2": 0.5}, train_metrics={"a": 1})
        newer = make_round(1, closed=False, revision=1, clients={"2": 0.25})
        started.record_round(older)
        assert started.record_round(newer) is True
        assert started.round(RUN_ID, 1) == newer

    @pytest.mark.parametrize("revision", [0, 1])
    def test_an_older_or_equal_revision_is_out_of_date(self, started: Store, revision: int):
        """A repeated delivery changes nothing."""
        stored = make_round(1, closed=False, revision=1, clients={"1": 0.5})
        started.record_round(stored)
        assert started.record_round(make_round(1, closed=False, revision=revision)) is False
        assert started.round(RUN_ID, 1) == stored

    def test_a_closed_round_may_be_delivered_again(self, started: Store):
        """The same content is a no-op, and counts once."""
        record = make_round(1, clients={"1": 0.5})
        assert started.record_round(record) is True
        assert started.record_round(record) is False
        assert started.run(RUN_ID).totals == totals_of(record)

    @pytest.mark.parametrize(
        "changed",
        [
            make_round(1, revision=2, clients={"1": 0.75}),
            make_round(1, revision=1, clients={"1": 0.75}),
            make_round(1, revision=0, clients={"1": 0.75}),
            make_round(1, revision=1, closed=False, clients={"1": 0.5}),
        ],
    )
    def test_a_closed_round_never_changes(self, started: Store, changed: RoundRecord):
        """Other content, or opening it again, is a conflict, and nothing is changed."""
        record = make_round(1, revision=1, clients={"1": 0.5})
        started.record_round(record)
        with pytest.raises(RoundConflict, match="round 1") as caught:
            started.record_round(changed)
        assert (caught.value.run_id, caught.value.round_number) == (RUN_ID, 1)
        assert started.round(RUN_ID, 1) == record
        assert started.run(RUN_ID).totals == totals_of(record)

    def test_an_open_revision_from_before_the_close_is_out_of_date(self, started: Store):
        """It arrives late and is merely ignored."""
        started.record_round(make_round(1, revision=2))
        assert started.record_round(make_round(1, revision=1, closed=False)) is False
        assert started.round(RUN_ID, 1).closed

    def test_closing_adds_to_the_totals_once(self, started: Store):
        """An open round is in no total; closing it adds it; other rounds add to that."""
        clients: dict[str, float | str] = {"1": 0.5, "2": "missing", "3": "negative"}
        started.record_round(make_round(1, closed=False, clients=clients))
        assert started.run(RUN_ID).totals == RunTotals()
        one = make_round(1, revision=1, clients=clients, status="partial")
        two = make_round(2, server_kwh=None, clients={"1": 0.25}, reports_repeated=2)
        started.record_round(one)
        started.record_round(two)
        assert started.run(RUN_ID).totals == totals_of(one, two)

    def test_the_cumulative_figure_is_the_total_at_closing(self, started: Store):
        """Fixed when a round closes, in the order of closing; unknown until anything is known."""
        started.record_round(make_round(1, server_kwh=None))
        started.record_round(make_round(3, server_kwh=0.002, clients={"1": 0.5}))
        started.record_round(make_round(2, server_kwh=None, clients={"1": "missing"}))
        started.record_round(make_round(4, closed=False, clients={"1": 0.5}))
        third = make_round(3, server_kwh=0.002, clients={"1": 0.5}).total_emissions_kg
        found = [s.cumulative_emissions_kg for s in started.rounds(RUN_ID, closed_only=False)]
        # Round 1 had nobody and no meter: its clients' emissions are a known 0, the run's are not.
        assert found == [None, third, third, None]

    def test_the_cumulative_figure_is_unknown_while_nothing_is_known(self, started: Store):
        """A silent client is not a client that emitted nothing."""
        started.record_round(make_round(1, server_kwh=None, clients={"1": "missing"}))
        assert next(started.rounds(RUN_ID)).cumulative_emissions_kg is None
        assert started.run(RUN_ID).totals.total_emissions_kg is None

    def test_attempts_are_rounds_of_their_own(self, started: Store):
        """Energy of all attempts counts."""
        first, second = make_round(1, status="failed"), make_round(1, attempt=2)
        started.record_round(first)
        started.record_round(second)
        assert started.round(RUN_ID, 1, attempt=1) == first
        assert started.round(RUN_ID, 1, attempt=2) == second
        assert started.run(RUN_ID).totals == totals_of(first, second)

    @pytest.mark.parametrize(
        "record",
        [
            make_round(1, status="running"),
            make_round(1, participants=make_round(1, clients={"1": 0.5}).participants * 2),
            make_round(1, reports=(make_report("1", 0.5), make_report("1", 0.25))),
        ],
    )
    def test_an_impossible_round_is_refused_whole(self, started: Store, record: RoundRecord):
        """A closed round that still runs, a client twice, a report twice: nothing is stored."""
        with pytest.raises(StoreError, match="round 1"):
            started.record_round(record)
        assert list(started.rounds(RUN_ID, closed_only=False)) == []
        assert started.run(RUN_ID).totals == RunTotals()

    def test_late_reports_are_counted_in_the_totals_only(self, started: Store):
        """They came when no round was open."""
        record = make_round(1, clients={"1": 0.5})
        started.record_round(record)
        started.add_late_reports(RUN_ID, 2)
        started.add_late_reports(RUN_ID, 1)
        assert started.run(RUN_ID).totals == totals_of(record).with_late_reports(3)
        assert next(started.rounds(RUN_ID)).reports_late == 0

    def test_rounds_come_in_order(self, started: Store):
        """By round and attempt; open ones only when asked for."""
        for number, attempt in ((10, 1), (2, 2), (2, 1), (0, 1)):
            started.record_round(make_round(number, attempt=attempt))
        started.record_round(make_round(3, closed=False))
        closed = [(s.round, s.attempt) for s in started.rounds(RUN_ID)]
        assert closed == [(0, 1), (2, 1), (2, 2), (10, 1)]
        everything = [(s.round, s.attempt) for s in started.rounds(RUN_ID, closed_only=False)]
        assert everything == [(0, 1), (2, 1), (2, 2), (3, 1), (10, 1)]

    def test_a_round_is_its_last_attempt_unless_one_is_named(self, started: Store):
        """Whatever the order in which they came, and an open one too."""
        second = make_round(1, attempt=2)
        started.record_round(second)
        started.record_round(make_round(1, status="interrupted"))
        started.record_round(make_round(2, attempt=5))
        assert started.round(RUN_ID, 1) == second
        third = make_round(1, attempt=3, closed=False)
        started.record_round(third)
        assert started.round(RUN_ID, 1) == third

    def test_a_round_that_is_not_stored_is_not_found(self, started: Store):
        """The message says which round of which run."""
        with pytest.raises(RunNotFound, match=r"round 7'"):
            started.round(RUN_ID, 7)
        with pytest.raises(RunNotFound, match=r"round 7 \(attempt 2\)"):
            started.round(RUN_ID, 7, attempt=2)

    def test_reports_come_by_round_attempt_node_and_phase(self, started: Store):
        """Of closed rounds only, whatever their order in the record."""
        started.record_round(
            make_round(2, reports=(make_report("b", 0.5), make_report("a", "negative")))
        )
        both = (make_report("a", 0.5, phase="train"), make_report("a", 0.25, phase="evaluate"))
        started.record_round(make_round(1, attempt=2, reports=both))
        started.record_round(make_round(1, reports=(make_report("c", 0.5),)))
        started.record_round(make_round(3, closed=False, clients={"a": 0.5}))
        found = list(started.reports(RUN_ID))
        assert [(n, k, r.node_id, r.phase) for n, k, r in found] == [
            (1, 1, "c", "train"),
            (1, 2, "a", "evaluate"),
            (1, 2, "a", "train"),
            (2, 1, "a", "train"),
            (2, 1, "b", "train"),
        ]
        assert found[2][2] == both[0]

    def test_participants_come_by_round_attempt_and_node(self, started: Store):
        """Of closed rounds only, the silent ones included."""
        second = make_round(2, clients={"b": "missing", "a": 0.5})
        started.record_round(second)
        started.record_round(make_round(1, clients={"c": "failed"}))
        started.record_round(make_round(3, closed=False, clients={"a": 0.5}))
        found = list(started.participants(RUN_ID))
        assert [(n, k, p.node_id) for n, k, p in found] == [(1, 1, "c"), (2, 1, "a"), (2, 1, "b")]
        assert found[2][2] == second.participants[0]

    def test_a_stream_may_be_left_half_read(self, started: Store):
        """Nothing is held by a reader that went away (the fixture looks)."""
        for number in range(1, 4):
            started.record_round(make_round(number, clients={"1": 0.5, "2": 0.5}))
        for stream in (started.rounds, started.reports, started.participants):
            rows = stream(RUN_ID)
            next(rows)
            del rows

    # --- runs whose owner is gone --------------------------------------------------------------

    def test_a_live_run_is_never_interrupted(self, started: Store):
        """Its lease is young, and its owner not known to be gone."""
        before = started.run(RUN_ID)
        assert list(started.mark_interrupted(IN_TIME, everybody_lives)) == []
        assert started.run(RUN_ID) == before

    @pytest.mark.parametrize(
        ("now", "is_alive"), [(EXPIRED, everybody_lives), (START, nobody_lives)]
    )
    def test_a_run_without_its_owner_is_interrupted(self, started: Store, now, is_alive):
        """An old lease or a dead process: the run ended with the owner's last word."""
        started.renew_lease(RUN_ID, OWNER, START + timedelta(seconds=0.5))
        assert list(started.mark_interrupted(now + timedelta(seconds=1), is_alive)) == [RUN_ID]
        run = started.run(RUN_ID)
        assert (run.status, run.owner) == ("interrupted", None)
        assert run.ended_at == START + timedelta(seconds=0.5)
        assert run.reason
        assert started.renew_lease(RUN_ID, OWNER, now) is False

    def test_a_run_released_before_its_end_is_interrupted(self, started: Store):
        """Nobody is left to end it."""
        started.release(RUN_ID, OWNER)
        assert list(started.mark_interrupted(START, everybody_lives)) == [RUN_ID]

    def test_an_ended_run_is_not_interrupted(self, started: Store):
        """Its end stands, however long its owner has been silent."""
        started.finish_run(RUN_ID, "completed", at(1))
        before = started.run(RUN_ID)
        assert list(started.mark_interrupted(at(1000), nobody_lives)) == []
        assert started.run(RUN_ID) == replace(before, owner=None)

    def test_the_owner_that_is_asked_about_is_the_runs(self, started: Store):
        """Of two running runs only the one of the dead process is interrupted."""
        started.start_run(make_run("other"), OTHER, START)
        assert list(started.mark_interrupted(START, lambda owner: owner == OWNER)) == ["other"]
        assert started.run(RUN_ID).status == "running"

    @pytest.mark.parametrize(
        ("before", "after"),
        [("running", "interrupted"), ("partial", "partial"), ("completed", "completed")],
    )
    def test_an_open_round_closes_with_what_was_stored(self, started: Store, before, after):
        """Its figures enter the totals; only ``running`` becomes ``interrupted``."""
        one = make_round(1, clients={"1": 0.5})
        opened = make_round(2, closed=False, revision=4, status=before, clients={"1": 0.25})
        started.record_round(one)
        started.record_round(opened)
        started.mark_interrupted(EXPIRED, everybody_lives)
        closed = opened.model_copy(update={"closed": True, "status": after, "revision": 5})
        assert started.round(RUN_ID, 2) == closed
        assert started.round(RUN_ID, 1) == one
        assert started.run(RUN_ID).totals == totals_of(one, closed)
        last = list(started.rounds(RUN_ID))[-1]
        assert last.cumulative_emissions_kg == totals_of(one, closed).total_emissions_kg

    def test_a_failing_question_interrupts_nothing(self, started: Store):
        """Marking is one transaction: all of it, or nothing."""
        started.start_run(make_run("other"), OTHER, START)

        def fails_for_the_second(owner: Owner) -> bool:
            if owner == OTHER:
                raise RuntimeError("made to fail")
            return False

        with pytest.raises(RuntimeError, match="made to fail"):
            started.mark_interrupted(START, fails_for_the_second)
        assert {run.status for run in started.runs()} == {"running"}

    # --- what /metrics shows -------------------------------------------------------------------

    def test_an_owner_shows_its_own_runs(self, started: Store):
        """Running or ended, oldest start first; not those of another live process."""
        started.start_run(make_run("older", started_at=at(-5)), OWNER, START)
        started.finish_run("older", "completed", at(1))
        started.start_run(make_run("others"), OTHER, START)
        assert [e.run for e in shown(started)] == [started.run("older"), started.run(RUN_ID)]

    def test_ended_runs_that_nobody_holds_are_shown(self, store: Store):
        """Released, or with an old lease; at most ``max_runs``, those that ended last."""
        for minute in (1, 2, 3):
            ended_run(store, f"run-{minute}", minute)
        store.start_run(make_run("held", started_at=at(4)), OTHER, at(4))
        store.finish_run("held", "completed", at(5))
        store.renew_lease("held", OTHER, at(5))
        store.start_run(make_run("own", started_at=at(-1)), OWNER, at(5.5))
        names = [e.run.run_id for e in shown(store, now=at(5.5), max_runs=2)]
        assert names == ["own", "run-2", "run-3"]
        store.release("own", OWNER)
        later = at(5) + timedelta(seconds=LEASE_EXPIRES_S + 1)
        names = [e.run.run_id for e in shown(store, now=later, max_runs=2)]
        assert names == ["run-3", "held"]

    def test_of_the_living_one_shows_what_nobody_holds(self, store: Store):
        """Whose run began first: each run has one source, and it always has one."""
        ended_run(store, "old", 1)
        store.start_run(make_run("second", started_at=at(3)), OTHER, at(3))
        assert names_of(shown(store, OTHER, now=at(3))) == ["old", "second"]
        store.start_run(make_run("first", started_at=at(2)), OWNER, at(3))
        assert names_of(shown(store, OWNER, now=at(3))) == ["old", "first"]
        assert names_of(shown(store, OTHER, now=at(3))) == ["second"]
        store.finish_run("first", "completed", at(3.5))
        assert names_of(shown(store, OWNER, now=at(3.5))) == ["old", "first"]
        assert names_of(shown(store, OTHER, now=at(3.5))) == ["second"]
        store.release("first", OWNER)
        assert names_of(shown(store, OTHER, now=at(3.5))) == ["old", "first", "second"]

    def test_a_silent_owner_leaves_what_nobody_holds_to_the_next(self, store: Store):
        """Once its lease has expired; a stranger without any run shows nothing beside the living."""
        ended_run(store, "old", 1)
        store.start_run(make_run("first", started_at=at(2)), OWNER, START)
        store.start_run(make_run("second", started_at=at(3)), OTHER, START)
        assert names_of(shown(store, OTHER, now=START)) == ["second"]
        store.renew_lease("second", OTHER, EXPIRED)
        assert names_of(shown(store, OTHER, now=EXPIRED)) == ["old", "second"]
        stranger = Owner(host="test-host", pid=3, token="3.made-up")
        assert names_of(shown(store, stranger, now=EXPIRED)) == []

    def test_an_own_ended_run_takes_nobodys_place(self, started: Store):
        """It is shown as its owner's, beside the last ended runs of others, old lease or not."""
        ended_run(started, "run-1", 1)
        started.finish_run(RUN_ID, "completed", at(9))
        names = [e.run.run_id for e in shown(started, now=at(20), max_runs=1)]
        assert names == [RUN_ID, "run-1"]

    def test_a_running_run_of_somebody_else_is_not_shown(self, started: Store):
        """Not even when its owner has been silent for long: it has not ended."""
        assert list(shown(started, OTHER, now=EXPIRED)) == []

    def test_a_service_shows_every_run(self, started: Store):
        """With ``owner`` None nothing is left out, but only the last ended have rounds."""
        for minute in (1, 2, 3):
            ended_run(started, f"run-{minute}", minute)
        started.start_run(make_run("others", started_at=at(9)), OTHER, START)
        started.record_round(make_round(1, run_id="others", closed=False))
        found = shown(started, None, max_runs=1)
        assert [e.run.run_id for e in found] == [RUN_ID, "run-1", "run-2", "run-3", "others"]
        assert [len(e.rounds) for e in found] == [0, 0, 0, 1, 0]
        assert [e.open_round is not None for e in found] == [False] * 4 + [True]

    def test_the_last_closed_rounds_are_shown(self, started: Store):
        """From round 1 on, oldest first, at most ``max_rounds``, as ``rounds`` gives them."""
        for number in range(6):
            started.record_round(make_round(number, clients={"1": 0.5}))
        [found] = shown(started, max_rounds=3)
        assert found.rounds == tuple(started.rounds(RUN_ID))[-3:]
        [found] = shown(started, max_rounds=9)
        assert [s.round for s in found.rounds] == [1, 2, 3, 4, 5]
        [found] = shown(started, max_rounds=0)
        assert found.rounds == ()

    def test_of_several_attempts_the_last_is_shown(self, started: Store):
        """Earlier attempts take no place among the rounds."""
        for number, attempt in ((1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)):
            started.record_round(make_round(number, attempt=attempt))
        [found] = shown(started, max_rounds=2)
        assert [(s.round, s.attempt) for s in found.rounds] == [(2, 2), (3, 3)]

    @pytest.mark.parametrize("number", [0, 3])
    def test_the_open_round_is_shown_apart(self, started: Store, number: int):
        """Round 0 too; it has no cumulative figure yet."""
        started.record_round(make_round(2))
        opened = make_round(number, closed=False, clients={"1": 0.5})
        started.record_round(opened)
        [found] = shown(started)
        assert found.open_round == opened.summary(None)
        assert [s.round for s in found.rounds] == [2]

    def test_the_latest_of_runs_is_what_is_shown_of_them(self, started: Store):
        """In the order in which they were asked for; a run that is gone has no rounds."""
        ended_run(started, "other", 1.0)
        ended_run(started, "gone", 2.0)
        for number in range(4):
            started.record_round(make_round(number))
        started.record_round(make_round(2, attempt=2))
        started.record_round(make_round(4, closed=False))
        gone, other, run = (started.run(run_id) for run_id in ("gone", "other", RUN_ID))
        started.delete_run("gone", at(9))
        found = started.latest([other, gone, run], max_rounds=2)
        assert [(one.run.run_id, len(one.rounds)) for one in found] == [
            ("other", 1), ("gone", 0), (RUN_ID, 2)
        ]  # fmt: skip
        exposed = {one.run.run_id: one for one in shown(started, max_rounds=2)}
        assert [found[0], found[2]] == [exposed["other"], exposed[RUN_ID]]
        assert started.latest([], max_rounds=2) == []

    def test_what_is_shown_agrees_with_the_run(self, started: Store):
        """Totals included."""
        started.record_round(make_round(1, clients={"1": 0.5}))
        started.add_late_reports(RUN_ID, 3)
        [found] = shown(started)
        assert found.run == started.run(RUN_ID)
        assert found.run.totals.reports_late == 3

    def test_an_empty_store_shows_nothing(self, store: Store):
        """Neither to an owner nor to a service."""
        assert list(shown(store)) == []
        assert list(shown(store, None)) == []
        assert list(store.runs()) == []

    def test_rounds_that_nobody_measured_leave_the_total_unknown(self, started: Store):
        """A set-up without a meter and without clients is no zero."""
        started.record_round(make_round(0, server_kwh=None))
        started.record_round(make_round(1, server_kwh=None, clients={"a": "missing"}))
        assert started.run(RUN_ID).totals.total_emissions_kg is None
        assert [row.cumulative_emissions_kg for row in started.rounds(RUN_ID)] == [None, None]

    # --- rounds without rows -------------------------------------------------------------------

    def test_a_round_without_rows_keeps_its_sums_and_no_client(self, started: Store):
        """Every figure is stored, and nothing that belongs to one client."""
        record = make_round(1, clients={"a": 0.5, "b": "missing"}, client_rows=False)
        assert started.record_round(record) is True
        [row] = started.rounds(RUN_ID)
        assert row == record.summary(record.total_emissions_kg)
        assert (row.participants, row.reported, row.client_histogram.count) == (2, 1, 1)
        assert row.evidence_sha256 is None
        assert list(started.reports(RUN_ID)) == []
        assert list(started.participants(RUN_ID)) == []
        with pytest.raises(RowsNotKept):
            started.round(RUN_ID, 1)

    def test_a_round_without_rows_may_be_delivered_again_and_not_changed(self, started: Store):
        """As with its rows, as far as the figures tell."""
        record = make_round(1, clients={"a": 0.5}, client_rows=False)
        started.record_round(record)
        assert started.record_round(record.model_copy(update={"revision": 7})) is False
        other = make_round(1, clients={"a": 0.25}, client_rows=False)
        with pytest.raises(RoundConflict):
            started.record_round(other)

    def test_a_round_that_waited_without_its_rows_is_the_same_round(self, started: Store):
        """Every figure and the totals; whichever comes first, the other is no news."""
        record = make_round(
            1, clients={"a": 0.5, "b": "missing"}, train_metrics={"loss": 0.5}, client_rows=False
        )
        waited = RowlessRound.model_validate_json(RowlessRound.of(record).model_dump_json())
        assert started.record_round(waited) is True
        assert started.record_round(record) is False
        [row] = started.rounds(RUN_ID)
        assert row == record.summary(record.total_emissions_kg)
        assert started.run(RUN_ID).totals == totals_of(record)
        started.record_round(make_round(2, clients={"a": 0.5}, client_rows=False))
        again = RowlessRound.of(make_round(2, clients={"a": 0.25}, client_rows=False))
        with pytest.raises(RoundConflict):
            started.record_round(again)

    def test_an_open_round_without_rows_is_closed_when_its_owner_is_gone(self, started: Store):
        """With the figures that were stored last, in the totals, once."""
        opened = make_round(1, clients={"a": 0.5}, closed=False, client_rows=False)
        started.record_round(opened)
        started.mark_interrupted(EXPIRED, nobody_lives)
        [row] = started.rounds(RUN_ID)
        assert (row.closed, row.status, row.revision) == (True, "interrupted", opened.revision + 1)
        assert started.run(RUN_ID).totals.total_emissions_kg == opened.total_emissions_kg
        assert row.cumulative_emissions_kg == opened.total_emissions_kg

    # --- seals ---------------------------------------------------------------------------------

    def test_a_run_is_sealed_when_it_ends(self, started: Store):
        """Over what can be read back from the store."""
        started.record_round(make_round(1, clients={"a": 0.5}))
        assert started.run(RUN_ID).sha256 is None
        started.finish_run(RUN_ID, "completed", at(3), "as planned")
        assert seal_of(started, RUN_ID) == started.run(RUN_ID).sha256
        started.finish_run(RUN_ID, "failed", at(4))
        assert seal_of(started, RUN_ID) == started.run(RUN_ID).sha256

    def test_a_round_that_closes_after_the_end_renews_the_seal(self, started: Store):
        """A late delivery belongs to the run."""
        started.finish_run(RUN_ID, "completed", at(3))
        before = started.run(RUN_ID).sha256
        started.record_round(make_round(1))
        assert started.run(RUN_ID).sha256 == seal_of(started, RUN_ID) != before

    def test_interruption_seals_and_resuming_takes_the_seal_off(self, started: Store):
        """A running run is never sealed."""
        started.record_round(make_round(1, closed=False))
        started.mark_interrupted(EXPIRED, nobody_lives)
        assert started.run(RUN_ID).sha256 == seal_of(started, RUN_ID)
        started.resume_run(RUN_ID, OTHER, EXPIRED)
        assert started.run(RUN_ID).sha256 is None

    def test_a_round_closed_by_interruption_has_its_evidence(self, started: Store):
        """Though it was stored open before, when there was none."""
        started.record_round(make_round(1, clients={"a": 0.5}, closed=False))
        started.mark_interrupted(EXPIRED, nobody_lives)
        [row] = started.rounds(RUN_ID)
        assert row.evidence_sha256 is not None
        assert row.evidence_sha256 == started.round(RUN_ID, 1).evidence_sha256

    def test_evidence_changes_with_any_row(self, started: Store):
        """Swapping two clients leaves every sum as it is, and not the seal."""
        one = make_round(1, clients={"a": 0.5, "b": 0.25})
        other = make_round(1, clients={"a": 0.25, "b": 0.5})
        assert one.total_emissions_kg == other.total_emissions_kg
        assert one.evidence_sha256 != other.evidence_sha256
        started.record_round(one)
        assert started.round(RUN_ID, 1).evidence_sha256 == one.evidence_sha256
        assert next(started.rounds(RUN_ID)).evidence_sha256 == one.evidence_sha256

    # --- deletion ------------------------------------------------------------------------------

    def test_a_deleted_run_leaves_its_id_and_nothing_else(self, started: Store):
        """And the id is not given to another run."""
        started.record_round(make_round(1, clients={"a": 0.5}))
        ended_run(started, "other-run", 3)
        started.finish_run(RUN_ID, "completed", at(3))
        started.delete_run(RUN_ID, at(5))
        assert [run.run_id for run in started.runs()] == ["other-run"]
        with pytest.raises(RunDeleted) as caught:
            started.run(RUN_ID)
        assert caught.value.deleted_at == at(5)
        for again in (
            lambda: started.start_run(make_run(), OWNER, START),
            lambda: started.record_round(make_round(2)),
            lambda: started.delete_run(RUN_ID, at(6)),
            lambda: started.round(RUN_ID, 1),
            lambda: list(started.reports(RUN_ID)),
        ):
            with pytest.raises(RunDeleted):
                again()
        assert len(list(started.rounds("other-run"))) == 1

    def test_a_live_run_is_not_deleted(self, started: Store):
        """One that is called running, but was left by its owner, is."""
        with pytest.raises(RunIsLive):
            started.delete_run(RUN_ID, IN_TIME)
        started.delete_run(RUN_ID, EXPIRED)
        assert started.runs() == []

    def test_deleting_a_run_that_never_was(self, store: Store):
        """Is no tombstone."""
        with pytest.raises(RunNotFound) as caught:
            store.delete_run(RUN_ID, START)
        assert not isinstance(caught.value, RunDeleted)
        store.start_run(make_run(), OWNER, START)

    # --- what a service has acknowledged -------------------------------------------------------

    def test_everything_of_a_run_is_to_be_delivered_until_it_is_acknowledged(self, started: Store):
        """The run, its closed rounds, its end; each is gone from the list once it is marked."""
        started.record_round(make_round(0))
        started.record_round(make_round(1))
        started.record_round(make_round(2, closed=False))
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert (pending.run, pending.announced, pending.end) == (started.run(RUN_ID), False, None)
        assert [r.key for r in pending.rounds] == [(0, 1), (1, 1)]
        assert pending.rounds[1].ended_at == make_round(1).ended_at

        started.mark_announced(SERVICE, RUN_ID)
        started.mark_delivered(SERVICE, RUN_ID, [(0, 1)])
        started.mark_delivered(SERVICE, RUN_ID, [(0, 1)])
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert (pending.announced, [r.key for r in pending.rounds]) == (True, [(1, 1)])

        started.mark_delivered(SERVICE, RUN_ID, [(1, 1)])
        assert started.undelivered(SERVICE, START, OWNER) == []
        started.record_round(make_round(2, revision=1))
        assert [r.key for r in started.undelivered(SERVICE, START, OWNER)[0].rounds] == [(2, 1)]

    def test_the_end_is_told_last_and_once(self, started: Store):
        """With the late reports that are in no round; a round that comes after it is pending again."""
        late = make_report("1", 0.5, late=True, reported_round=1)
        started.record_round(make_round(1, clients={"2": 0.5}, reports=(late,)))
        started.add_late_reports(RUN_ID, 3)
        started.finish_run(RUN_ID, "failed", at(5), "why")
        started.mark_announced(SERVICE, RUN_ID)
        started.mark_delivered(SERVICE, RUN_ID, [(1, 1)])
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert pending.rounds == ()
        assert pending.end == RunEnd(status="failed", ended_at=at(5), reason="why", late_reports=3)
        started.mark_ended(SERVICE, RUN_ID, at(5))
        assert started.undelivered(SERVICE, START, OWNER) == []

        started.record_round(make_round(2))
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert (pending.announced, pending.end) == (True, None)
        assert [r.key for r in pending.rounds] == [(2, 1)]
        started.mark_delivered(SERVICE, RUN_ID, [(2, 1)])
        assert started.undelivered(SERVICE, START, OWNER) == []

    def test_the_end_may_be_acknowledged_before_a_round(self, started: Store):
        """What is left stays on the list."""
        started.record_round(make_round(1))
        started.finish_run(RUN_ID, "completed", at(5))
        started.mark_announced(SERVICE, RUN_ID)
        started.mark_ended(SERVICE, RUN_ID, at(5))
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert ([r.key for r in pending.rounds], pending.end) == ([(1, 1)], None)

    def test_a_run_that_goes_on_again_is_announced_again(self, started: Store):
        """The service knows an end that is none any more, or not the right one."""
        started.finish_run(RUN_ID, "interrupted", at(5))
        started.mark_announced(SERVICE, RUN_ID)
        started.mark_ended(SERVICE, RUN_ID, at(5))
        started.resume_run(RUN_ID, OWNER, at(6))
        (pending,) = started.undelivered(SERVICE, at(6), OWNER)
        assert (pending.announced, pending.end) == (False, None)
        started.finish_run(RUN_ID, "completed", at(7))
        (pending,) = started.undelivered(SERVICE, at(7), OWNER)
        assert pending.announced is False
        assert pending.end is not None
        assert pending.end.status == "completed"
        started.mark_announced(SERVICE, RUN_ID)
        started.mark_ended(SERVICE, RUN_ID, at(7))
        assert started.undelivered(SERVICE, at(7), OWNER) == []

    def test_what_one_service_has_another_has_not(self, started: Store):
        """And what a service has lost is to be delivered again, to it alone."""
        started.record_round(make_round(1))
        for service in (SERVICE, "https://other.example"):
            started.mark_announced(service, RUN_ID)
            started.mark_delivered(service, RUN_ID, [(1, 1)])
        started.forget_delivered(SERVICE, RUN_ID)
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert (pending.announced, [r.key for r in pending.rounds]) == (False, [(1, 1)])
        assert started.undelivered("https://other.example", START, OWNER) == []

    def test_everybody_delivers_their_own_runs_and_those_that_nobody_holds(self, started: Store):
        """Own runs first; another's only when its lease has expired or it was released."""
        ended_run(started, "run-of-nobody", -10)
        started.start_run(make_run("run-of-other"), OTHER, EXPIRED)
        ids = [p.run_id for p in started.undelivered(SERVICE, EXPIRED, OWNER)]
        assert ids == [RUN_ID, "run-of-nobody"]
        ids = [p.run_id for p in started.undelivered(SERVICE, IN_TIME, OTHER)]
        assert ids == ["run-of-other", "run-of-nobody"]
        ids = [p.run_id for p in started.undelivered(SERVICE, EXPIRED, None)]
        assert ids == ["run-of-nobody", RUN_ID]

    def test_rounds_are_delivered_in_the_order_in_which_they_were_closed(self, started: Store):
        """Attempts come where they were made; a clock that was set back changes nothing."""
        started.record_round(make_round(1))
        started.record_round(make_round(3))
        back = {"started_at": at(-60), "ended_at": at(-59)}
        started.record_round(make_round(0, attempt=2, **back))
        started.record_round(make_round(2, **back))
        (pending,) = started.undelivered(SERVICE, START, OWNER)
        assert [r.key for r in pending.rounds] == [(1, 1), (3, 1), (0, 2), (2, 1)]

    def test_runs_without_rows_of_clients_are_not_delivered(self, store: Store):
        """A service adds up the rows itself."""
        store.start_run(make_run(client_rows=False), OWNER, START)
        store.record_round(make_round(1, client_rows=False))
        assert store.undelivered(SERVICE, START, OWNER) == []

    def test_an_ended_run_whose_owner_is_gone_is_let_go_of(self, started: Store):
        """Its owner could not do so itself; whoever flushes delivers it at once."""
        started.finish_run(RUN_ID, "completed", at(1))
        assert started.mark_interrupted(IN_TIME, everybody_lives) == []
        assert started.run(RUN_ID).owner == OWNER
        assert started.undelivered(SERVICE, IN_TIME, None) == []
        assert started.mark_interrupted(IN_TIME, nobody_lives) == []
        assert (started.run(RUN_ID).owner, started.run(RUN_ID).status) == (None, "completed")
        assert [p.run_id for p in started.undelivered(SERVICE, IN_TIME, None)] == [RUN_ID]

    def test_what_a_service_lacks_is_told_whoever_holds_it(self, store: Store):
        """Of a service that is named, or has heard of the run; until it knows the end."""
        store.start_run(make_run(), OWNER, START)  # held by a living owner
        store.record_round(make_round(1))
        store.finish_run(RUN_ID, "completed", at(3))
        ended_run(store, "run-b", 1)
        store.start_run(make_run("rowless", client_rows=False), OTHER, START)
        store.finish_run("rowless", "completed", at(3))
        assert store.unacknowledged([]) == []
        assert store.unacknowledged([SERVICE]) == sorted([RUN_ID, "run-b"])
        store.mark_announced("https://other.example", "run-b")
        assert store.unacknowledged([]) == ["run-b"]
        for service in (SERVICE, "https://other.example"):
            for run_id in (RUN_ID, "run-b"):
                ended_at = store.run(run_id).ended_at
                assert ended_at is not None
                store.mark_announced(service, run_id)
                assert run_id in store.unacknowledged([SERVICE])
                store.mark_delivered(service, run_id, [(1, 1)])
                assert run_id in store.unacknowledged([SERVICE])
                store.mark_ended(service, run_id, ended_at)
        assert store.unacknowledged([SERVICE]) == []
        store.record_round(make_round(2))
        assert store.unacknowledged([]) == [RUN_ID]

    def test_a_pruned_run_is_not_delivered(self, started: Store):
        """There is nothing left that a service could add up."""
        ended_run(started, "run-b", 1)
        assert "run-b" in started.unacknowledged([SERVICE])
        assert started.prune(at(99), at(99)) == ["run-b"]
        assert [p.run_id for p in started.undelivered(SERVICE, START, OWNER)] == [RUN_ID]
        assert started.unacknowledged([SERVICE]) == [RUN_ID]

    def test_a_deleted_run_is_not_delivered(self, started: Store):
        """What was marked goes with it."""
        ended_run(started, "run-b", 1)
        started.mark_announced(SERVICE, "run-b")
        started.mark_delivered(SERVICE, "run-b", [(1, 1)])
        started.delete_run("run-b", at(3))
        assert [p.run_id for p in started.undelivered(SERVICE, START, OWNER)] == [RUN_ID]
        for mark in (
            lambda: started.mark_announced(SERVICE, "run-b"),
            lambda: started.mark_delivered(SERVICE, "run-b", [(1, 1)]),
            lambda: started.mark_ended(SERVICE, "run-b", START),
            lambda: started.forget_delivered(SERVICE, "run-b"),
        ):
            with pytest.raises(RunDeleted):
                mark()
