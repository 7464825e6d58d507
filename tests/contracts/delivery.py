"""The part of a store's contract that a service needs: deliveries, tokens of its interface, pruning.

A subclass gives the fixture ``store``, as for `tests.contracts.store.StoreContract`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from telemetry.domain import RoundRecord
from telemetry.errors import (
    BadTokenFact,
    EndConflict,
    RoundConflict,
    RunDeleted,
    RunExists,
    RunNotFound,
    RunPruned,
    StoreError,
)
from telemetry.store.api_tokens import new_token
from telemetry.store.base import Store
from telemetry.store.deliveries import DeliveredEnd, DeliveredRounds, DeliveredRun, Delivery
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

CLIENTS: dict[str, float | str] = {"1": 0.5, "2": "missing"}


def at(minutes: float) -> Any:
    """A time after `START`."""
    return START + timedelta(minutes=minutes)


def the_run(run_id: str = RUN_ID, writer: str = "a", **facts: Any) -> DeliveredRun:
    """A run, delivered."""
    return DeliveredRun(writer=writer, info=make_run(run_id, **facts))


def the_rounds(*records: RoundRecord, run_id: str = RUN_ID, writer: str = "a") -> DeliveredRounds:
    """Rounds, delivered."""
    return DeliveredRounds(writer=writer, run_id=run_id, records=records)


def the_end(status: Any = "completed", minute: float = 9, **facts: Any) -> DeliveredEnd:
    """An end, delivered."""
    defaults: dict[str, Any] = {"writer": "a", "run_id": RUN_ID}
    return DeliveredEnd(status=status, ended_at=at(minute), **{**defaults, **facts})


def deliver(store: Store, *given: Delivery, minute: float = 0) -> list[Any]:
    """What became of them: a number, or the class of an error."""
    came_to = store.deliver(given, at(minute))
    return [one if isinstance(one, int) else type(one) for one in came_to]


class DeliveryContract:
    """What a service's store promises."""

    @pytest.fixture
    def begun(self, store: Store) -> Store:
        """The store, with a run delivered by ``a``."""
        assert deliver(store, the_run()) == [1]
        return store

    def test_what_was_delivered_is_stored_as_if_recorded(self, begun: Store):
        """Rounds come back equal, with the same totals and seal as where the server wrote them."""
        rounds = [make_round(n, clients=CLIENTS, server_kwh=0.25) for n in (1, 2)]
        assert deliver(begun, the_rounds(*rounds), the_end()) == [2, 1]
        begun.start_run(make_run("direct"), OWNER, START)
        for record in rounds:
            begun.record_round(record.model_copy(update={"run_id": "direct"}))
        begun.finish_run("direct", "completed", at(9))
        one, other = begun.run(RUN_ID), begun.run("direct")
        assert [begun.round(RUN_ID, n) for n in (1, 2)] == rounds
        assert one.totals == other.totals
        assert one.totals.total_emissions_kg is not None
        assert (one.status, one.ended_at, one.writer, other.writer) == (
            "completed", at(9), "a", None,
        )  # fmt: skip
        assert one.sha256 is not None

    def test_everything_may_come_again(self, begun: Store):
        """A repeated delivery stores nothing and changes nothing, in whatever order it comes."""
        given = the_run(), the_rounds(make_round(1, clients=CLIENTS)), the_end(late_reports=3)
        assert deliver(begun, *given) == [0, 1, 1]
        before, rounds = begun.run(RUN_ID), list(begun.rounds(RUN_ID))
        assert deliver(begun, *reversed(given)) == [0, 0, 0]
        assert (begun.run(RUN_ID), list(begun.rounds(RUN_ID))) == (before, rounds)
        assert before.totals.reports_late == 3

    def test_a_delivery_is_stored_whole_or_not_at_all(self, begun: Store):
        """A conflict in its last round keeps the first out, and touches no other delivery."""
        assert deliver(begun, the_run("other"), the_rounds(make_round(1))) == [1, 1]
        changed = make_round(1, status="failed")
        elsewhere = the_rounds(make_round(1, run_id="other"), run_id="other")
        assert deliver(
            begun, the_rounds(make_round(2), changed), elsewhere, the_rounds(make_round(3))
        ) == [RoundConflict, 1, 1]
        assert [row.round for row in begun.rounds(RUN_ID)] == [1, 3]

    def test_a_run_belongs_to_its_writer(self, begun: Store):
        """To others it is not there, and neither is one that a server writes here itself."""
        begun.start_run(make_run("direct"), OWNER, START)
        theirs: list[Delivery] = [
            the_run(writer="b"),
            the_run(writer="b", run_name="of another name"),
            the_rounds(make_round(1), writer="b"),
            the_end(writer="b"),
            the_run("direct"),
            the_rounds(make_round(1, run_id="direct"), run_id="direct"),
            the_rounds(make_round(1, run_id="unknown"), run_id="unknown"),
        ]
        for one in theirs:
            assert deliver(begun, one) == [RunNotFound], one
        assert begun.run(RUN_ID).status == "running"
        assert not list(begun.rounds(RUN_ID))

    def test_other_facts_are_refused(self, begun: Store):
        """A run's facts do not change."""
        assert deliver(begun, the_run(strategy="FedProx")) == [RunExists]

    def test_each_delivery_is_a_word_of_the_server(self, begun: Store):
        """The run counts as alive from then on."""
        given: list[Delivery] = [the_run(), the_rounds(make_round(1)), the_end()]
        for minute, one in enumerate(given, start=1):
            deliver(begun, one, minute=minute)
            assert begun.run(RUN_ID).last_seen_at == at(minute)

    def test_nobody_here_ends_a_delivered_run(self, begun: Store):
        """Its server may live beyond a network that is down; what it then delivers is taken."""
        assert begun.mark_interrupted(at(1000), lambda _: False) == []
        assert begun.run(RUN_ID).status == "running"
        assert deliver(begun, the_rounds(make_round(1)), the_end(), minute=1001) == [1, 1]

    def test_rounds_are_taken_after_the_end(self, begun: Store):
        """What overtook them ends the run as it would have, and the seal is renewed."""
        deliver(begun, the_end())
        seal = begun.run(RUN_ID).sha256
        assert deliver(begun, the_rounds(make_round(1))) == [1]
        run = begun.run(RUN_ID)
        assert run.status == "completed"
        assert run.sha256 not in (None, seal)

    def test_a_new_attempt_after_the_end_takes_the_run_up(self, begun: Store):
        """As the server did, which then ends it once more."""
        deliver(begun, the_rounds(make_round(0), make_round(1)), the_end("interrupted", 3))
        # Of the first attempt: they only came late, one begun after the server's last sign of life.
        late = make_round(2), make_round(4, started_at=at(3.1), ended_at=at(3.2))
        assert deliver(begun, the_rounds(*late)) == [2]
        assert begun.run(RUN_ID).status == "interrupted"
        again = make_round(0, attempt=2, started_at=at(4), ended_at=at(5))
        assert deliver(begun, the_rounds(again)) == [1]
        run = begun.run(RUN_ID)
        assert (run.status, run.ended_at, run.sha256) == ("running", None, None)
        assert deliver(begun, the_end("completed", 6)) == [1]
        assert begun.run(RUN_ID).ended_at == at(6)

    def test_an_end_that_overtook_the_new_attempt_stands(self, begun: Store):
        """The rounds of a resumed run, delivered after its second end, do not take it up again."""
        deliver(begun, the_rounds(make_round(1)), the_end("interrupted", 3))
        assert deliver(begun, the_end("failed", 6)) == [1]
        again = make_round(0, attempt=2, started_at=at(4), ended_at=at(5))
        assert deliver(begun, the_rounds(again)) == [1]
        assert begun.run(RUN_ID).status == "failed"

    def test_a_completed_run_stays_completed(self, begun: Store):
        """Another end is a conflict."""
        deliver(begun, the_end())
        assert deliver(begun, the_end("failed", 10)) == [EndConflict]
        assert begun.run(RUN_ID).status == "completed"

    def test_late_reports_are_a_total(self, begun: Store):
        """Said again they add nothing, said higher only what is new, and a counter never falls."""
        deliver(begun, the_rounds(make_round(1)))
        for said, stored in ((2, 2), (2, 2), (5, 5), (1, 5)):
            deliver(begun, the_end("failed", late_reports=said))
            assert begun.run(RUN_ID).totals.reports_late == stored

    def test_a_deleted_run_is_not_taken_again(self, begun: Store):
        """Neither its facts nor its rounds."""
        deliver(begun, the_end())
        begun.delete_run(RUN_ID, at(10))
        for one in (the_run(), the_rounds(make_round(1)), the_end()):
            assert deliver(begun, one) == [RunDeleted]

    # --- what came together ------------------------------------------------------------------

    def test_the_same_delivered_twice_at_once_is_news_once(self, begun: Store):
        """And enters the totals once; other content of it is a conflict, as it is later on."""
        record = make_round(1, clients=CLIENTS, server_kwh=0.25)
        changed = record.model_copy(update={"reason": "another"})
        given = the_rounds(record), the_rounds(record, record), the_rounds(changed)
        assert deliver(begun, *given) == [1, 0, RoundConflict]
        assert deliver(begun, *given) == [0, 0, RoundConflict]
        assert begun.round(RUN_ID, 1) == record
        assert begun.run(RUN_ID).totals.rounds == {"completed": 1}

    def test_revisions_that_come_together_end_as_the_last(self, begun: Store):
        """Whether the round was stored before or not; only the closed one is in the totals."""
        rows: dict[str, float | str] = {"1": 0.5}
        for number, first in ((1, False), (2, True)):
            opened = [
                make_round(number, closed=False, revision=n, clients=rows, server_kwh=0.25 * n)
                for n in (1, 2)
            ]
            closed = make_round(number, revision=3, clients=CLIENTS, server_kwh=0.75)
            if first:
                assert deliver(begun, the_rounds(opened[0])) == [1]
            given = the_rounds(*opened), the_rounds(opened[0]), the_rounds(closed, opened[1])
            assert deliver(begun, *given) == [1 if first else 2, 0, 1]
            assert begun.round(RUN_ID, number) == closed
        totals = begun.run(RUN_ID).totals
        assert totals.rounds == {"completed": 2}
        assert totals.server_energy_kwh == 1.5

    def test_rounds_around_an_end_that_come_together(self, begun: Store):
        """Each finds what the one before it left: sums, late reports, end and seal."""
        before, after = make_round(1, clients=CLIENTS), make_round(2, clients=CLIENTS)
        again = make_round(0, attempt=2, started_at=at(4), ended_at=at(5))
        given = the_rounds(before), the_end("failed", 3, late_reports=2), the_rounds(after)
        assert deliver(begun, *given, the_rounds(again), the_rounds(make_round(3))) == [1] * 5
        run = begun.run(RUN_ID)
        assert (run.status, run.sha256, run.totals.reports_late) == ("running", None, 2)
        assert run.totals.rounds == {"completed": 3}
        assert [row.round for row in begun.rounds(RUN_ID)] == [0, 1, 2, 3]

    def test_a_run_that_begins_with_its_rounds(self, store: Store):
        """Whatever else comes with them, of whichever run."""
        given: list[Delivery] = []
        for name in ("b", "a", "c"):
            rounds = the_rounds(make_round(1, run_id=name, server_kwh=0.25), run_id=name)
            given += [the_run(name), rounds, the_end(run_id=name)]
        unknown = the_rounds(make_round(1, run_id="d"), run_id="d")
        assert deliver(store, *given[:4], unknown, *given[4:]) == [1] * 4 + [RunNotFound] + [1] * 5
        for name in ("a", "b", "c"):
            run = store.run(name)
            assert (run.status, run.totals.server_energy_kwh) == ("completed", 0.25)

    def test_many_rounds_of_many_runs_come_together(self, store: Store):
        """More than one question to the database takes."""
        names = [f"run-{number}" for number in range(70)]
        assert deliver(store, *map(the_run, names)) == [1] * 70
        rounds = [
            the_rounds(*(make_round(n, run_id=name) for n in range(3)), run_id=name)
            for name in names
        ]
        assert deliver(store, *rounds) == [3] * 70
        assert deliver(store, *reversed(rounds), minute=5) == [0] * 70
        for name in names:
            run = store.run(name)
            assert run.totals.rounds == {"completed": 2}  # the set-up is none
            assert run.last_seen_at == at(5)

    # --- pruning -----------------------------------------------------------------------------

    def test_pruning_keeps_the_totals_of_old_runs(self, begun: Store):
        """Rounds and rows of clients go; the run, its totals and its seal stay."""
        deliver(begun, the_rounds(make_round(1, clients=CLIENTS)), the_end(), the_run("young"))
        young = the_rounds(make_round(1, run_id="young"), run_id="young")
        deliver(begun, young, the_end(minute=11, run_id="young"))
        before = begun.run(RUN_ID)
        assert begun.prune(at(10), at(20)) == [RUN_ID]
        after = begun.run(RUN_ID)
        assert (after.totals, after.sha256, after.status) == (
            before.totals, before.sha256, "completed",
        )  # fmt: skip
        assert (before.pruned_at, after.pruned_at) == (None, at(20))
        assert not [*begun.rounds(RUN_ID), *begun.reports(RUN_ID), *begun.participants(RUN_ID)]
        assert [row.round for row in begun.rounds("young")] == [1]
        assert begun.prune(at(10), at(30)) == []

    def test_a_run_that_goes_on_is_not_pruned(self, begun: Store):
        """However old it is."""
        deliver(begun, the_rounds(make_round(1)))
        assert begun.prune(at(10**6), at(10**6)) == []
        assert [row.round for row in begun.rounds(RUN_ID)] == [1]

    def test_a_pruned_run_takes_no_rounds(self, begun: Store):
        """Its totals hold them already: one that came again would count twice."""
        record = make_round(1, clients=CLIENTS)
        deliver(begun, the_rounds(record), the_end("failed"))
        begun.prune(at(10), at(20))
        totals = begun.run(RUN_ID).totals
        assert deliver(begun, the_rounds(record)) == [RunPruned]
        assert deliver(begun, the_end("failed")) == [0]
        for attempt in (
            lambda: begun.record_round(record),
            lambda: begun.resume_run(RUN_ID, OWNER, at(30)),
        ):
            with pytest.raises(RunPruned):
                attempt()
        assert begun.run(RUN_ID).totals == totals

    def test_pruning_without_totals_deletes_old_runs(self, begun: Store):
        """Those pruned before, too; the id and the seal stay as after a deletion, young runs whole."""
        deliver(begun, the_rounds(make_round(1, clients=CLIENTS)), the_end(), the_run("young"))
        deliver(begun, the_end(minute=11, run_id="young"), the_run("pruned"))
        deliver(begun, the_end(minute=1, run_id="pruned"), the_run("running"))
        assert begun.prune(at(2), at(20)) == ["pruned"]
        assert begun.prune(at(10), at(30), keep_totals=False) == sorted([RUN_ID, "pruned"])
        assert sorted(run.run_id for run in begun.runs()) == ["running", "young"]
        for run_id in (RUN_ID, "pruned"):
            with pytest.raises(RunDeleted):
                begun.run(run_id)
            assert deliver(begun, the_run(run_id)) == [RunDeleted]
        assert begun.prune(at(10), at(30), keep_totals=False) == []

    @pytest.mark.parametrize("keep_totals", [True, False])
    def test_spared_runs_stay_as_they_are(self, begun: Store, keep_totals: bool):
        """However old."""
        deliver(begun, the_rounds(make_round(1, clients=CLIENTS)), the_end())
        before = begun.run(RUN_ID)
        assert begun.prune(at(99), at(99), keep_totals=keep_totals, spared=[RUN_ID]) == []
        assert begun.run(RUN_ID) == before
        assert [row.round for row in begun.rounds(RUN_ID)] == [1]

    # --- pages -------------------------------------------------------------------------------

    def test_runs_come_in_pages(self, store: Store):
        """Each page begins with the run that is named, so that none is left out or comes twice."""
        for number, minute in enumerate((0, 1, 1, 2)):
            store.start_run(make_run(f"run-{number}", started_at=at(minute)), OWNER, START)
        every = [run.run_id for run in store.runs()]
        assert [run.run_id for run in store.page_of_runs(9)] == every
        for place, run in enumerate(store.runs()):
            page = store.page_of_runs(2, (run.info.started_at, run.run_id))
            assert [one.run_id for one in page] == every[place : place + 2]

    def test_rounds_and_reports_begin_where_they_are_asked_to(self, begun: Store):
        """At a round and attempt, or at the next one there is."""
        rounds = [make_round(n, attempt=a, clients=CLIENTS) for n, a in ((1, 1), (1, 2), (3, 1))]
        deliver(begun, the_rounds(*rounds))
        for start, found in (((1, 2), [(1, 2), (3, 1)]), ((2, 1), [(3, 1)]), ((3, 2), [])):
            rows = begun.rounds(RUN_ID, start=start)
            assert [(row.round, row.attempt) for row in rows] == found
            assert [row[:2] for row in begun.reports(RUN_ID, start=start)] == found

    def test_a_store_that_is_there_says_so(self, store: Store):
        """Nothing is raised."""
        store.check()

    # --- tokens ------------------------------------------------------------------------------

    def test_a_token_comes_back_equal(self, store: Store):
        """With its scopes and dates, and never the token itself."""
        token, facts = new_token("a", ["write", "read"], START, at(5))
        store.add_token(facts)
        assert store.api_tokens() == [facts]
        assert token not in repr(store.api_tokens())
        assert [facts.state(at(minute)) for minute in (4, 5)] == ["valid", "expired"]

    def test_one_token_of_a_label_holds(self, store: Store):
        """The next one is made after the first was revoked, and the first stays known."""
        store.add_token(new_token("a", ["write"], START)[1])
        second = new_token("a", ["read"], at(1))[1]
        with pytest.raises(BadTokenFact, match="revoke it first"):
            store.add_token(second)
        store.revoke_token("a", at(1))
        store.add_token(second)
        assert [token.state(at(2)) for token in store.api_tokens()] == ["revoked", "valid"]
        store.revoke_token("a", at(3))
        with pytest.raises(BadTokenFact, match="no token labelled 'a'"):
            store.revoke_token("a", at(4))

    def test_an_impossible_round_is_refused(self, begun: Store):
        """As `record_round` refuses it."""
        twice = make_round(1, clients={"1": 0.5})
        twice = twice.model_copy(update={"participants": twice.participants * 2})
        (refusal,) = begun.deliver([the_rounds(twice)], START)
        assert isinstance(refusal, StoreError)
        assert "names a participant twice" in str(refusal)
