"""The views of revision 0006 on both databases: reports, and what a run's progress cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from telemetry.analysis.value import LOWER_IS_BETTER, falls, value_of
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, RUN_ID, START, make_report, make_round, make_run

NAMES = ("accuracy", "val_loss", "RMSE", "crossEntropy", "tomato", "")
_numbers = count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store on each database."""
    kind = request.param.removesuffix("ql")
    with closing(open_store(request.getfixturevalue(f"{kind}_url"))) as opened:
        yield opened


def rows_of(store: Store, view: str, run_id: str) -> list[dict[str, Any]]:
    """The rows of a view about a run, read past the store."""
    query = f"SELECT * FROM {view} WHERE run_id = "
    if store.url.startswith("sqlite"):
        with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as file:
            file.row_factory = sqlite3.Row
            return [dict(row) for row in file.execute(query + "?", (run_id,))]
    with psycopg.connect(store.url, row_factory=dict_row) as connection:
        return connection.execute(f"{query}%s", (run_id,)).fetchall()


# --- progress ------------------------------------------------------------------------------------

values = st.one_of(
    st.floats(-1e9, 1e9, allow_subnormal=False),
    st.sampled_from((0.0, 0.5, 0.5 + 1e-12, 0.75, 1.0)),
)
metrics = st.dictionaries(st.sampled_from(("train", "evaluate")), values, max_size=2)
contents = st.tuples(
    metrics,
    st.none() | st.floats(0, 50, allow_subnormal=False),
    st.none() | st.floats(0, 50, allow_subnormal=False),
    st.sampled_from(("next", "next", "next", "again", "open")),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES[:-1]), played=st.lists(contents, max_size=6))
def test_v_run_value_is_what_runs_compare_says(
    store: Store,
    name: str,
    played: list[tuple[Mapping[str, float], float | None, float | None, str]],
):
    """First, best and last value, points and grams per point, whatever was repeated or not measured."""
    run_id = f"20260102-030405-{next(_numbers):06x}"
    store.start_run(make_run(run_id, value_metric=name), OWNER, START)
    number, attempt = 1, 1
    for place, (found, server_kwh, client_kg, then) in enumerate(played):
        store.record_round(
            make_round(
                number,
                run_id=run_id,
                attempt=attempt,
                closed=then != "open",
                started_at=START + timedelta(minutes=place),
                ended_at=START + timedelta(minutes=place + 1),
                server_kwh=server_kwh,
                clients={} if client_kg is None else {"a": client_kg},
                **{
                    f"{split}_metrics": {name: value, "other": 1.0}
                    for split, value in found.items()
                },
            )
        )
        if then == "open":
            break
        number, attempt = (number, attempt + 1) if then == "again" else (number + 1, 1)
    expected = value_of(list(store.rounds(run_id)), name)
    found_rows = rows_of(store, "v_run_value", run_id)
    if expected is None:
        assert found_rows == []
        return
    [row] = found_rows
    assert (row["metric"], row["split"]) == (name, expected.split)
    assert bool(row["lower_is_better"]) == expected.lower_is_better == falls(name)
    assert row["first_value"] == pytest.approx(expected.steps[0].value, rel=1e-9)
    assert row["last_value"] == pytest.approx(expected.steps[-1].value, rel=1e-9)
    assert row["best_value"] == pytest.approx(expected.best.value, rel=1e-8)
    if row["best_round"] == expected.best.round:
        assert row["points"] == pytest.approx(expected.points, rel=1e-9)
        price = expected.average_g_per_point
        assert row["grams_per_point"] == (
            price if price is None else pytest.approx(price, rel=1e-9)
        )
    else:  # several values within 1e-9 of the best: either is it
        near = {step.round: step.value for step in expected.steps}[row["best_round"]]
        assert near == pytest.approx(expected.best.value, rel=1e-8)


def test_grams_per_point_of_a_run_by_hand(store: Store):
    """Half a gram a round from the second on, ten points: 0.05 g a point; the set-up is paid before."""
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(0))
    for number, accuracy in ((1, 0.5), (2, 0.55), (3, 0.6), (4, 0.4)):
        store.record_round(
            make_round(
                number,
                server_kwh=0.0,
                clients={"a": 0.00025, "b": 0.00025},
                evaluate_metrics={"accuracy": accuracy},
            )
        )
    [row] = rows_of(store, "v_run_value", RUN_ID)
    assert (row["best_value"], row["best_round"], row["last_value"]) == (0.6, 3, 0.4)
    assert row["points"] == pytest.approx(10, rel=1e-12)
    assert row["grams_per_point"] == pytest.approx(0.1, rel=1e-12)


@pytest.mark.parametrize("value", [1.7e308, -1.7e308, 1e-320, 5e-324])
def test_values_at_the_ends_of_a_float_break_no_query(store: Store, value: float):
    """A database may refuse to calculate with them: the other runs must be shown all the same."""
    store.start_run(make_run(), OWNER, START)
    for number, one in ((1, value), (2, -value), (3, 0.5)):
        store.record_round(make_round(number, evaluate_metrics={"accuracy": one}))
    [row] = rows_of(store, "v_run_value", RUN_ID)
    assert row["best_value"] == 0.5


def test_the_direction_is_kept_with_the_run(store: Store):
    """Of every name as `falls` judges it."""
    for name in (*NAMES, *LOWER_IS_BETTER):
        run_id = f"20260102-030405-{next(_numbers):06x}"
        store.start_run(make_run(run_id, value_metric=name or "x"), OWNER, START)
        store.record_round(make_round(1, run_id=run_id, train_metrics={name or "x": 1.0}))
        [row] = rows_of(store, "v_run_value", run_id)
        assert bool(row["lower_is_better"]) == falls(name)


# --- reports -------------------------------------------------------------------------------------


def test_v_report_shows_each_report_once(store: Store):
    """What counts adds up to the round; why one does not count, and marks, stand beside it."""
    store.start_run(make_run(), OWNER, START)
    record = make_round(1, clients={"a": 0.5, "b": "negative", "c": "missing"})
    marked = make_report("a", 0.25, phase="evaluate", outlier=True, looks_cumulative=True)
    late = make_report("d", 0.125, reported_round=0, late=True)
    store.record_round(record.model_copy(update={"reports": (*record.reports, marked, late)}))
    rows = {(row["client"], row["phase"]): row for row in rows_of(store, "v_report", RUN_ID)}
    of = {report.node_id: report.client for report in (*record.reports, late)}
    assert set(rows) == {
        (of["a"], "train"),
        (of["a"], "evaluate"),
        (of["b"], "train"),
        (of["d"], "train"),
    }
    refused = rows[of["b"], "train"]
    assert (bool(refused["accepted"]), refused["rejection"]) == (False, "negative")
    assert (refused["rejected_value"], refused["counted_emissions_kg"]) == ("made up", None)
    assert bool(rows[of["a"], "evaluate"]["outlier"])
    assert not rows[of["a"], "train"]["looks_cumulative"]
    assert (bool(rows[of["d"], "train"]["late"]), rows[of["d"], "train"]["reported_round"]) == (
        True,
        0,
    )
    counted = [row["counted_emissions_kg"] or 0.0 for row in rows.values()]
    [summary] = store.rounds(RUN_ID)
    assert sum(counted) == summary.clients_emissions_kg


def test_reports_show_no_machine_and_no_node(store: Store):
    """Neither as a column nor as a value."""
    store.start_run(make_run(), OWNER, START)
    store.record_round(make_round(1, clients={"node-1": 0.5}))
    for view in ("v_report", "v_run_value"):
        for row in rows_of(store, view, RUN_ID):
            assert not [name for name in row if "host" in name or "node" in name]
            assert "node-1" not in " ".join(map(str, row.values()))
