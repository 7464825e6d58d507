"""What a server without a log of ours says in Flower's: where the record is, and its total."""

from __future__ import annotations

import logging
from pathlib import Path
from threading import Event

import pytest
from flwr.serverapp.strategy import FedAvg

from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import StoredRun
from telemetry.errors import StoreError
from telemetry.store import open_store
from telemetry.store.memory import InMemoryStore
from tests.fedserver_hooks.fakes import LocalGrid, model, recorder, trains


def run(book: EmissionsStrategy, caplog: pytest.LogCaptureFixture) -> list[str]:
    """One round; our lines in Flower's log."""
    caplog.set_level(logging.INFO, "flwr")
    grid = LocalGrid({node: trains(0.5, 10, emissions_kg=0.002) for node in (1, 2)})
    book.start(grid, model(), num_rounds=1)
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith("footprint")]


def test_the_command_works_from_any_folder_and_the_total_is_the_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A ServerApp's folder is the SuperLink's: the path is said whole, and the figure with its unit."""
    monkeypatch.chdir(tmp_path)
    book = recorder(store=open_store("sqlite:///telemetry.db"))
    where, total = run(EmissionsStrategy(FedAvg(), book), caplog)
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    assert where.endswith(f": fedserver runs show {book.run.run_id} --store {url}")
    kilograms = open_store(url).run(book.run.run_id).totals.total_emissions_kg
    assert kilograms
    assert total == f"footprint of run {book.run.run_id}: {kilograms * 1000:.4g} g CO2eq"


def test_a_store_that_fails_at_the_end_costs_the_line_and_not_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The total is left out where it cannot be read; that is counted."""
    store = InMemoryStore()

    def broken(run_id: str) -> None:
        raise StoreError("memory://", "gone")

    monkeypatch.setattr(store, "run", broken)
    book = recorder(store=store)
    said = run(EmissionsStrategy(FedAvg(), book), caplog)
    assert len(said) == 1
    assert book.failures.counts["store"] == 1


def test_a_store_that_hangs_does_not_keep_the_training_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The total comes late, or never."""
    store, let_go = InMemoryStore(), Event()
    really = store.run

    def slow(run_id: str) -> StoredRun:
        let_go.wait(30)
        return really(run_id)

    monkeypatch.setattr(store, "run", slow)
    try:
        said = run(EmissionsStrategy(FedAvg(), recorder(store=store)), caplog)
        assert len(said) == 1
    finally:
        let_go.set()
