"""`telemetry.verify`: what is stored is what was recorded, and any cell that was changed is named."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Double, Integer, Table

from telemetry.domain import RoundRecord
from telemetry.store import Store, open_store
from telemetry.store.sql import tables
from telemetry.store.sql.types import UtcDateTime
from telemetry.testing import (
    FACTORS,
    OWNER,
    RUN_ID,
    START,
    make_lap,
    make_participant,
    make_report,
    make_round,
    make_run,
)
from telemetry.verify import SINCE_EVIDENCE, Verification, verify_run
from tests import strategies
from tests.telemetry.views import BACKENDS, Content, Driver, a_run, opened, steps

ESTIMATING = replace(FACTORS, network_kwh_per_gb=0.05, impute_missing=True)
ROUND = "round = 2 AND attempt = 1"


def a_whole_round(number: int, **facts: Any) -> RoundRecord:
    """Every kind of row: reports of every outcome, silent clients, laps, metrics, bytes."""
    clients: dict[str, float | str] = {
        "a": 0.5, "b": 0.25, "c": 0.125, "d": "missing", "e": "negative", "f": "failed",
    }  # fmt: skip
    participants = (make_participant(node, what) for node, what in clients.items())
    known = {"energy_kwh": 2.0, "counted_energy_kwh": 1.0, "duration_s": 5.0}
    return make_round(
        number,
        sequence=number + 1,
        factors=ESTIMATING,
        participants=tuple(
            replace(part, bytes_to=1000 + place, bytes_from=2000, sent_at=START)
            for place, part in enumerate(participants)
        ),
        reports=tuple(
            make_report(node, what, reported_round=number, **(known if node == "b" else {}))
            for node, what in clients.items()
            if what not in ("missing", "failed")
        ),
        laps=(make_lap(0.001), make_lap(0.002, phase="aggregate")),
        reports_repeated=1,
        train_metrics={"loss": 0.5},
        evaluate_metrics={"accuracy": 0.75},
        **facts,
    )


def play(store: Store) -> None:
    """A run with a set-up and two rounds, ended and sealed."""
    a_run(store, make_round(0, sequence=1), a_whole_round(1), a_whole_round(2), factors=ESTIMATING)
    store.finish_run(RUN_ID, "completed", START.replace(hour=4), "as planned")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with that run."""
    path = tmp_path_factory.mktemp("untouched") / "telemetry.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        play(store)
    return path


@pytest.fixture
def path(untouched: Path, tmp_path: Path) -> Path:
    """A copy of it to be tampered with."""
    return Path(shutil.copy(untouched, tmp_path))


def changed(path: Path, *statements: str) -> Verification:
    """What verification says after somebody worked on the file past this program."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement
    with closing(open_store(f"sqlite:///{path}")) as store:
        return verify_run(store, RUN_ID)


# --- what is whole -------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_untouched_run_is_verified_whole(backend: str, sqlite_url: str) -> None:
    """All its rounds and its seal, and nothing is left unverified."""
    with opened(backend, sqlite_url) as store:
        play(store)
        found = verify_run(store, RUN_ID)
        assert (found.differences, found.unverified) == ((), ())
        assert (found.rounds, found.sha256) == (3, store.run(RUN_ID).sha256)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_without_a_meter_is_no_difference(backend: str, sqlite_url: str) -> None:
    """Of a set-up that nobody measured no cumulative figure is known, nor until a client reports."""
    unmetered: dict[str, Any] = {"server_kwh": None, "laps": ()}
    with opened(backend, sqlite_url) as store:
        a_run(
            store,
            make_round(0, **unmetered),
            make_round(1, clients={"a": "missing"}, **unmetered),
            make_round(2, clients={"a": 0.5}, **unmetered),
        )
        store.finish_run(RUN_ID, "completed", START.replace(hour=4))
        known = [row.cumulative_emissions_kg for row in store.rounds(RUN_ID)]
        assert known == [None, None, 0.5]
        assert verify_run(store, RUN_ID).differences == ()


_numbers = count()


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """One store of each kind for the many runs of a property."""
    folder = tmp_path_factory.mktemp("shared")
    with opened(request.param, f"sqlite:///{folder}/shared.db") as kept:
        yield kept


@given(
    info=strategies.runs(),
    records=st.lists(
        strategies.rounds(closed=True), max_size=3, unique_by=lambda r: (r.round, r.attempt)
    ),
    kept=st.booleans(),
    late=st.integers(0, 1),
)
def test_any_run_is_verified(
    shared: Store, info: Any, records: list[RoundRecord], kept: bool, late: int
) -> None:
    """Whatever was recorded and in whatever order it closed, nothing differs from what it says."""
    run_id = f"any-{next(_numbers):06d}"
    shared.start_run(info.model_copy(update={"run_id": run_id}), OWNER, START)
    for record in records:
        shared.record_round(record.model_copy(update={"run_id": run_id, "client_rows": kept}))
    shared.add_late_reports(run_id, late)
    assert verify_run(shared, run_id).ok
    shared.finish_run(run_id, "failed", START)
    found = verify_run(shared, run_id)
    assert found.differences == ()
    assert len(found.unverified) == late + (not kept and bool(records))


@given(played=steps)
def test_any_course_of_a_run_is_verified(shared: Store, played: list[tuple[str, Content]]) -> None:
    """Revisions, repeats, new attempts and late reports, while it runs and once interrupted."""
    driver = Driver(shared)
    driver.start()
    for step, content in played:
        driver.play(step, content)
    assert verify_run(shared, driver.run_id).differences == ()
    shared.mark_interrupted(START, lambda _: False)
    assert shared.run(driver.run_id).sha256 is not None
    assert verify_run(shared, driver.run_id).differences == ()


def test_rounds_out_of_order_are_no_fault_of_a_run_that_goes_on() -> None:
    """Its end puts the cumulative figures in order; they are verified before and after."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        for number in (0, 2, 1, 3):
            clients = {"a": 0.1 * (number + 1)}
            store.record_round(make_round(number, sequence=number + 1, clients=clients))
        assert verify_run(store, RUN_ID).differences == ()
        store.finish_run(RUN_ID, "completed", START.replace(hour=4))
        assert verify_run(store, RUN_ID).differences == ()


def test_a_run_that_was_resumed_by_a_newer_server_is_verified() -> None:
    """Sums of its older rounds are plain."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        for number in range(6):
            clients = {"a": 0.1 / (number + 7)}
            store.record_round(make_round(number, clients=clients))
        store.record_round(make_round(0, attempt=2, sequence=7, clients={"a": 0.3}))
        store.record_round(make_round(6, sequence=8, clients={"a": 0.1}))
        assert verify_run(store, RUN_ID).differences == ()
        store.finish_run(RUN_ID, "completed", START.replace(hour=4))
        assert verify_run(store, RUN_ID).differences == ()


# --- one cell of every kind ------------------------------------------------------------------------

NOT_FACTS = {
    ("runs", "run_id"),  # then it is another run, of which there are no rounds
    ("runs", "owner"), ("runs", "last_seen_at"),  # whose it was, not what it came to
    ("runs", "writer"),  # who delivers it
    ("runs", "lower_is_better"),  # for views: which way the metric goes, by its name
    ("run_totals", "run_id"),  # then the run has no totals and cannot be read
    ("run_totals", "reports_late"),  # more than in the rounds may well be: a test of its own
}  # fmt: skip
"""Columns that verification does not speak for."""
ROWS = {
    "runs": f"run_id = '{RUN_ID}'",
    "run_totals": f"run_id = '{RUN_ID}'",
    "rounds": ROUND,
    "round_phases": f"{ROUND} AND lap = 0",
    "training_metrics": f"{ROUND} AND split = 'train'",
    "participants": f"{ROUND} AND position = 0",
    "reports": f"{ROUND} AND position = 1",
}
KINDS = {"round_noise", "deleted_runs", "api_tokens", "run_deliveries", "round_deliveries"}
"""Tables without a figure: private, of runs that are gone, of who may read, of what was delivered."""
CELLS = [
    (name, column.name)
    for name in ROWS
    for column in tables.metadata.tables[name].columns
    if (name, column.name) not in NOT_FACTS
]


def another(table: Table, name: str) -> str:
    """An SQL expression for a value that the cell does not have."""
    column = table.c[name]
    if name in ("client_histogram", "train_metrics", "evaluate_metrics", "software"):
        return f"replace({name}, '0', '7')"
    if name == "metric_names":
        return "'[]'"
    if name == "rests":
        return """'{"total_emissions_kg": [1e-30]}'"""
    if isinstance(column.type, UtcDateTime):
        return "'2001-01-01T00:00:00.000000Z'"
    if isinstance(column.type, Boolean):
        return f"1 - coalesce({name}, 0)"
    if isinstance(column.type, Double | Integer | BigInteger):
        return f"coalesce({name}, 0) + 100"
    return f"coalesce({name}, '') || 'x'"


def test_every_table_with_figures_is_tampered_with() -> None:
    """A new table cannot be forgotten here."""
    assert set(tables.metadata.tables) == set(ROWS) | KINDS


@pytest.mark.parametrize(("name", "column"), CELLS)
def test_a_changed_cell_is_found(path: Path, name: str, column: str) -> None:
    """Whichever cell of whichever table it is: verification fails, and says where to look."""
    new = another(tables.metadata.tables[name], column)
    found = changed(path, f"UPDATE {name} SET {column} = {new} WHERE {ROWS[name]}")
    assert not found.ok
    places = {(difference.where, difference.figure) for difference in found.differences}
    match name:
        case "runs":
            told = {"sha256", "its record", "pruned_at"}
            assert {("the run", figure) for figure in told} & places
        case "run_totals":
            parts = column, column.removesuffix("_energy_kwh"), column.removeprefix("rounds_")
            for where, figure in places:
                assert where == "the run's totals"
                assert any(part in figure for part in parts), figure
        case "rounds":
            assert ("the run", "sha256") in places
            if column not in ("run_id", "round", "attempt"):
                assert {where for where, _ in places} & {"round 2", "the run"}
        case _:
            assert (
                ("round 2", "evidence_sha256") in places
                or ("round 2", "rows") in places
                or (name == "training_metrics")
            )
            assert any(where == "round 2" for where, _ in places)


def test_the_figure_is_named_with_both_values(path: Path) -> None:
    """As it is stored, and as the rows have it."""
    found = changed(path, f"UPDATE rounds SET clients_emissions_kg = 0.5 WHERE {ROUND}")
    assert "round 2: clients_emissions_kg is 0.5, recomputed 0.875" in map(str, found.differences)


def test_a_changed_cumulative_figure_is_named_alone(path: Path) -> None:
    """Beside the seal; the rounds after it rest on the rounds' own totals, not on this."""
    where = "round = 1 AND attempt = 1"
    found = changed(path, f"UPDATE rounds SET cumulative_emissions_kg = 9 WHERE {where}")
    assert {(d.where, d.figure) for d in found.differences} == {
        ("the run", "sha256"),
        ("round 1", "cumulative_emissions_kg"),
    }


def test_a_changed_row_is_told_by_its_sum_and_by_its_evidence(path: Path) -> None:
    """Both of the round that it stands in, and of no other."""
    found = changed(
        path, f"UPDATE reports SET counted_emissions_kg = 9 WHERE {ROUND} AND node_id = 'c'"
    )
    assert {difference.where for difference in found.differences} == {"round 2"}
    figures = {difference.figure for difference in found.differences}
    assert {"evidence_sha256", "clients_emissions_kg", "total_emissions_kg"} <= figures


def test_swapped_clients_are_told_by_the_evidence_alone(path: Path) -> None:
    """Where every sum stays what it was."""
    swap = (
        "UPDATE reports SET counted_emissions_kg = 0.75 - counted_emissions_kg, "
        f"emissions_kg = 0.75 - emissions_kg WHERE {ROUND} AND node_id IN ('a', 'b')"
    )
    (only,) = changed(path, swap).differences
    assert (only.where, only.figure) == ("round 2", "evidence_sha256")


def test_a_round_that_was_taken_out_is_missed(path: Path) -> None:
    """By the seal, the totals, and the rounds after it."""
    found = changed(path, "DELETE FROM rounds WHERE round = 1")
    where = {difference.where for difference in found.differences}
    assert where == {"the run", "the run's totals", "round 2"}


def test_a_row_that_was_taken_out_is_missed(path: Path) -> None:
    """A silent client leaves a gap in the evidence."""
    found = changed(path, f"DELETE FROM participants WHERE {ROUND} AND node_id = 'd'")
    assert ("round 2", "missing") in {(d.where, d.figure) for d in found.differences}


def test_what_no_program_of_ours_wrote_is_a_difference(path: Path) -> None:
    """A cell that cannot be read is told, not a traceback."""
    found = changed(path, f"UPDATE reports SET counted_emissions_kg = 'much' WHERE {ROUND}")
    assert any("unreadable" in difference.stored for difference in found.differences)
    found = changed(path, f"UPDATE rounds SET train_metrics = '{{' WHERE {ROUND}")
    assert any("unreadable" in difference.stored for difference in found.differences)
    nan = 'replace(client_histogram, \'"sum_g": \', \'"sum_g": NaN, "was": \')'
    found = changed(path, f"UPDATE rounds SET client_histogram = {nan} WHERE {ROUND}")
    assert any("unreadable" in difference.stored for difference in found.differences)


def test_an_older_total_does_not_hide_behind_late_reports(path: Path) -> None:
    """Fewer late reports than the rounds have is a difference; more is told as unverified."""
    more = changed(path, "UPDATE run_totals SET reports_late = 3")
    assert more.ok
    assert more.unverified == ("3 late report(s) in the run's totals: no round was open for them",)


def test_a_seal_that_was_taken_off_is_missed(path: Path) -> None:
    """Rounds with evidence were recorded by a version that seals."""
    (only,) = changed(path, "UPDATE runs SET sha256 = NULL").differences
    assert (only.figure, only.stored) == ("sha256", "unknown")


# --- what cannot be verified -------------------------------------------------------------------------


def test_a_running_run_says_what_is_still_open(path: Path) -> None:
    """Its closed rounds are verified nevertheless."""
    running = "UPDATE runs SET status = 'running', ended_at = NULL, sha256 = NULL"
    found = changed(path, running)
    assert found.ok
    assert [text.split(":")[0] for text in found.unverified] == ["the seal", "the run's totals"]
    assert not changed(path, f"UPDATE rounds SET failed = 5 WHERE {ROUND}").ok


def test_a_run_from_before_seals_says_so(path: Path) -> None:
    """No seal, no evidence, no later figures; its sums are verified."""
    figures = ", ".join(f"{name} = NULL" for name in sorted(SINCE_EVIDENCE))
    estimates = [c.name for c in tables.run_totals.c if c.name in SINCE_EVIDENCE]
    totals = ", ".join(f"{name} = NULL" for name in estimates)
    found = changed(
        path,
        "UPDATE runs SET sha256 = NULL",
        f"UPDATE rounds SET {figures}, sequence = NULL",
        f"UPDATE run_totals SET {totals}",
    )
    assert found.differences == ()
    assert [text.split(":")[0] for text in found.unverified] == [
        "the seal",
        "the rows of 3 rounds (round 0 to round 2)",
    ]
    assert not changed(path, f"UPDATE reports SET counted_emissions_kg = 9 WHERE {ROUND}").ok


def test_rounds_without_rows_rest_on_the_seal(sqlite_url: str) -> None:
    """Their sums cannot be recomputed, but not be changed unseen either."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    with closing(open_store(sqlite_url)) as store:
        store.start_run(make_run(client_rows=False), OWNER, START)
        store.record_round(a_whole_round(1, client_rows=False))
        store.finish_run(RUN_ID, "completed", START)
        found = verify_run(store, RUN_ID)
    assert found.ok
    assert found.unverified == ("the sums of round 1: no rows of clients are kept",)
    assert not changed(path, "UPDATE rounds SET clients_emissions_kg = 0.5").ok


def test_a_pruned_run_is_said_to_be_beyond_verification() -> None:
    """Its totals and its seal are kept; what they were made of is gone."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        store.record_round(make_round(1, clients={"a": 0.5}))
        store.finish_run(RUN_ID, "completed", START + timedelta(minutes=3))
        store.release(RUN_ID, OWNER)
        later = START + timedelta(days=300)
        assert store.prune(later, later) == [RUN_ID]
        found = verify_run(store, RUN_ID)
        assert (found.ok, found.rounds) == (True, 0)
        assert "pruned on 2026-10-29" in found.unverified[0]
