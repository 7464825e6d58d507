"""The views: SQL that dashboards and people rely on."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from telemetry.domain import Owner
from telemetry.store import Store, open_store
from telemetry.testing import RUN_ID, START, make_report, make_round, make_run

OWNER = Owner(host="owner-host", pid=7, token="7.owner-token")
NODES: dict[str, float | str] = {
    "node-1": 0.5,
    "node-2": 0.25,
    "node-3": "missing",
    "node-4": "negative",
}


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    """A run with a closed round of each kind and an open one."""
    store = open_store(sqlite_url)
    store.start_run(make_run(server_host_id="server-host"), OWNER, START)
    first = make_round(1, clients=NODES, train_metrics={"accuracy": 0.5})
    evaluated = make_report("node-1", 0.125, phase="evaluate", counted_energy_kwh=0.75)
    late = make_report("node-9", 0.0625, reported_round=0, late=True)
    first = first.model_copy(update={"reports": (*first.reports, evaluated, late)})
    store.record_round(first)
    store.record_round(make_round(2, server_kwh=None, clients={"node-3": "failed"}))
    store.record_round(make_round(3, closed=False))
    yield store
    store.close()


def view(store: Store, name: str) -> list[dict[str, Any]]:
    """The rows of a view, by column, read past the store."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as connection:
        connection.row_factory = sqlite3.Row
        order = "run_id" if name == "v_run" else "round, attempt"
        return [dict(row) for row in connection.execute(f"SELECT * FROM {name} ORDER BY {order}")]


def test_v_run_shows_the_totals(store: Store):
    """One row, with the run's status and the figures of its closed rounds."""
    [row] = view(store, "v_run")
    run = store.run(RUN_ID)
    assert (row["run_id"], row["status"], row["country"]) == (RUN_ID, "running", "ESP")
    for name in ("total_emissions_kg", "server_emissions_kg", "clients_emissions_kg"):
        assert row[name] == getattr(run.totals, name)
    assert row["wait_energy_kwh"] == run.totals.phase_energy_kwh["wait"]
    assert (row["rounds_completed"], row["rounds_failed"]) == (2, 0)
    assert row["setup_energy_kwh"] is None


def test_v_round_shows_every_round(store: Store):
    """Open ones too; unknown is NULL and not 0."""
    rows = view(store, "v_round")
    for row, summary in zip(rows, store.rounds(RUN_ID, closed_only=False), strict=True):
        shared = [name for name in row if hasattr(summary, name) and not name.endswith("_at")]
        assert len(shared) > 30
        for name in shared:
            assert row[name] == getattr(summary, name), name
        assert row["pue"] == summary.factors.pue
    assert [row["closed"] for row in rows] == [1, 1, 0]
    assert rows[1]["server_emissions_kg"] is None


def test_v_client_round_sums_to_the_round(store: Store):
    """Every report that counts has a row, one without a part in the round too."""
    for summary in store.rounds(RUN_ID):
        rows = [row for row in view(store, "v_client_round") if row["round"] == summary.round]
        known = [row["emissions_kg"] for row in rows if row["emissions_kg"] is not None]
        assert (sum(known) if known else None) == summary.clients_emissions_kg
        energy = [row["energy_kwh"] for row in rows if row["energy_kwh"] is not None]
        assert (sum(energy) if energy else None) == summary.clients_energy_kwh
        assert sum(row["reports_accepted"] for row in rows) == (
            summary.reports_accepted + summary.reports_late
        )


def test_v_client_round_tells_missing_rejected_and_measured_apart(store: Store):
    """Three facts, three kinds of row."""
    rows = {(row["round"], row["client"]): row for row in view(store, "v_client_round")}
    first = {p.node_id: rows[1, p.client] for p in store.round(RUN_ID, 1).participants}
    assert first["node-1"]["train_emissions_kg"] == 0.5
    assert first["node-1"]["evaluate_emissions_kg"] == 0.125
    assert first["node-1"]["evaluate_energy_kwh"] == 0.75
    assert first["node-2"]["evaluate_emissions_kg"] is None
    silent, refused = first["node-3"], first["node-4"]
    assert (silent["outcome"], silent["emissions_kg"], silent["rejection"]) == (
        "missing",
        None,
        None,
    )
    assert (refused["outcome"], refused["emissions_kg"], refused["rejection"]) == (
        "rejected",
        None,
        "negative",
    )
    assert (refused["reports_accepted"], refused["reports_rejected"]) == (0, 1)
    [stranger] = [row for row in rows.values() if row["train"] is None]
    assert (stranger["emissions_kg"], stranger["reports_late"]) == (0.0625, 1)


@pytest.mark.parametrize("name", ["v_run", "v_round", "v_client_round"])
def test_views_show_no_machine_and_no_node(store: Store, name: str):
    """Neither as a column nor as a value."""
    rows = view(store, name)
    assert rows
    assert not [column for column in rows[0] if re.search("host_id|node|owner", column)]
    shown = " ".join(str(value) for row in rows for value in row.values())
    assert not re.search("owner-token|server-host|host-of|node-", shown)


def test_untracked_rounds_have_no_figures(store: Store):
    """Where emissions are not tracked nothing is 0."""
    record = make_round(4, server_kwh=None, tracked=False, laps=(), clients={"node-1": "failed"})
    store.record_round(record)
    [row] = [row for row in view(store, "v_round") if row["round"] == 4]
    assert (row["failed"], row["reported"], row["missing"]) == (1, None, None)
    assert (row["total_emissions_kg"], row["coverage"]) == (None, None)
    assert replace(store.run(RUN_ID)).totals.total_emissions_kg is not None
