"""The hook around real strategies: the training is the same, to the bit, with it and without."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    Strategy,
)

from fedserver_hooks.allocation import ScopeUnavailable, ServerScope
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry import writer
from telemetry.errors import TelemetryError
from telemetry.store.memory import InMemoryStore
from tests.fedserver_hooks.fakes import HandClock, LocalGrid, fails, model, recorder, trains

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "FedAvg": FedAvg,
    "FedAdam": FedAdam,
    "FedAvgM": lambda: FedAvgM(server_momentum=0.5),
    "FedMedian": FedMedian,
    "DP(FedAvg)": lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.5, 1.0, 3),
}


def fleet(**reports: Any) -> LocalGrid:
    """Three clients; ``reports`` is what the second one says of itself."""
    return LocalGrid({1: trains(0.5, 10), 2: trains(1.5, 20, **reports), 3: trains(-0.25, 30)})


def bytes_of(arrays: ArrayRecord) -> dict[str, tuple[str, bytes]]:
    """Names in order, types and bytes."""
    return {name: (array.dtype, array.data) for name, array in arrays.items()}


def train(strategy: Strategy, grid: LocalGrid) -> Any:
    """Three rounds from a fixed seed."""
    random.seed(3)
    np.random.seed(3)
    return strategy.start(grid, model(), num_rounds=3)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("tracked", [True, False])
def test_the_model_is_the_same_bit_for_bit(name: str, tracked: bool) -> None:
    """Hook or no hook, tracking on or off, reports or none: same bytes, same metrics, same seed."""
    bare = train(STRATEGIES[name](), fleet())
    clock = HandClock()
    book = recorder(clock=clock, tracked=tracked)
    hooked = EmissionsStrategy(STRATEGIES[name](), book)
    result = train(hooked, fleet(emissions_kg=0.002, country="ESP"))
    assert bytes_of(result.arrays) == bytes_of(bare.arrays)
    assert result.train_metrics_clientapp == bare.train_metrics_clientapp
    assert result.evaluate_metrics_clientapp == bare.evaluate_metrics_clientapp
    assert random.random() == _next_random(name)
    assert book.errors == {}


def _next_random(name: str) -> float:
    train(STRATEGIES[name](), fleet())
    return random.random()


class Spy(FedAvg):
    """Keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[tuple[int, Any]]] = []

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.seen.append([(r.metadata.src_node_id, _content(r)) for r in kept])
        return super().aggregate_train(server_round, kept)


def _content(reply: Message) -> Any:
    if reply.has_error():
        return reply.error.reason
    return {
        name: bytes_of(record) if isinstance(record, ArrayRecord) else dict(record)
        for name, record in reply.content.items()
    }


def test_the_strategy_inside_sees_exactly_what_it_would_see_without_us() -> None:
    """Same order, same errors, same records; only ``emissions`` is gone, in any of its forms."""
    plain, hooked = Spy(), Spy()
    random.seed(1)
    plain.start(LocalGrid({1: trains(), 2: trains(), 3: fails()}), model(), num_rounds=2)
    random.seed(1)
    with_reports = {
        1: trains(emissions=0.5),
        2: trains(emissions_kg=0.1, sensor="rapl"),
        3: fails(),
    }
    EmissionsStrategy(hooked, recorder()).start(LocalGrid(with_reports), model(), num_rounds=2)
    assert hooked.seen == plain.seen
    assert [node for node, _ in hooked.seen[0]].count(3) == 1


def test_a_mixed_fleet_neither_averages_nor_ends_the_run() -> None:
    """1 g and 3 g are 4 g; Flower alone averages them, and raises when only some report."""
    grid = {1: trains(examples=10, emissions=0.001), 2: trains(examples=30, emissions=0.003)}
    bare = FedAvg().start(LocalGrid(dict(grid)), model(), num_rounds=1)
    assert bare.train_metrics_clientapp[1]["emissions"] == pytest.approx(0.0025)
    store = InMemoryStore()
    book = recorder(store)
    result = EmissionsStrategy(FedAvg(), book).start(
        LocalGrid({**grid, 3: trains()}), model(), num_rounds=1
    )
    record = store.round(book.run.run_id, 1)
    assert record.clients_emissions_kg == pytest.approx(0.004, rel=1e-12)
    assert record.coverage == 2 / 3
    assert "emissions" not in result.train_metrics_clientapp[1]


def test_start_records_the_run_from_beginning_to_end() -> None:
    """Rounds, metrics and status are there after Flower's own `start` returns."""
    store, clock = InMemoryStore(), HandClock()
    book = recorder(store, clock=clock)
    grid = LocalGrid({1: trains(emissions=0.001), 2: trains()}, clock)
    EmissionsStrategy(FedAvg(), book).start(grid, model(), num_rounds=4)
    run = store.run(book.run.run_id)
    assert run.status == "completed"
    assert run.info.rounds_planned == 4
    assert run.owner is None
    rows = list(store.rounds(run.run_id))
    assert [row.round for row in rows] == [0, 1, 2, 3, 4]
    assert rows[1].train_metrics["accuracy"] == pytest.approx(0.51)
    assert rows[1].phase_energy_kwh["wait"] == pytest.approx(100 * 60 / 3.6e6)
    assert rows[1].phase_energy_kwh["evaluate"] == pytest.approx(100 * 60 / 3.6e6)


def test_clients_are_told_the_run() -> None:
    """Train and evaluate messages carry ``fl-run-id``; helpers need it for the host."""
    grid = LocalGrid({1: trains(), 2: trains()})
    book = recorder()
    EmissionsStrategy(FedAvg(), book).start(grid, model(), num_rounds=1)
    for message in grid.sent:
        config = message.content["config"]
        assert isinstance(config, ConfigRecord)
        assert config["fl-run-id"] == book.run.run_id


class Raises(FedAvg):
    """Ends the run the way Flower does."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        raise ValueError("inconsistent replies")


def test_what_the_strategy_raises_is_raised_and_on_record() -> None:
    """The error is the caller's as before; run and round are failed, with the reason."""
    store = InMemoryStore()
    book = recorder(store)
    with pytest.raises(ValueError, match="inconsistent"):
        EmissionsStrategy(Raises(), book).start(
            LocalGrid({1: trains(), 2: trains()}), model(), num_rounds=2
        )
    run = store.run(book.run.run_id)
    assert run.status == "failed"
    assert store.round(run.run_id, 1).status == "failed"
    assert "inconsistent replies" in (store.round(run.run_id, 1).reason or "")


def test_a_client_that_answers_with_an_error_is_failed_with_its_reason() -> None:
    """The reason is the one that came with the reply."""
    store = InMemoryStore()
    book = recorder(store)
    grid = LocalGrid({1: trains(), 2: trains(), 3: fails("out of memory")})
    EmissionsStrategy(FedAvg(), book).start(grid, model(), num_rounds=1)
    record = store.round(book.run.run_id, 1)
    assert {p.node_id: p.reason for p in record.participants}["3"] == "out of memory"
    assert record.status == "partial"


class Interrupts(FedAvg):
    """Somebody presses Ctrl-C while the server aggregates."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        raise KeyboardInterrupt


def test_an_interrupted_start_is_on_record_as_such() -> None:
    """Ctrl-C leaves an interrupted run with its open round closed."""
    store = InMemoryStore()
    book = recorder(store)
    with pytest.raises(KeyboardInterrupt):
        EmissionsStrategy(Interrupts(), book).start(
            LocalGrid({1: trains(), 2: trains()}), model(), num_rounds=1
        )
    assert store.run(book.run.run_id).status == "interrupted"
    assert store.round(book.run.run_id, 1).status == "interrupted"


def test_rounds_driven_without_start_are_recorded_too() -> None:
    """A loop of one's own: the run begins with the first round."""
    store = InMemoryStore()
    book = recorder(store)
    strategy = EmissionsStrategy(FedAvg(), book)
    grid = LocalGrid({1: trains(emissions=0.001), 2: trains()})
    replies = grid.send_and_receive(strategy.configure_train(1, model(), ConfigRecord(), grid))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    book.finish("completed")
    assert store.round(book.run.run_id, 1).clients_emissions_kg == 0.001


class BrokenStore(InMemoryStore):
    """Fails at everything once training has begun."""

    def record_round(self, record: Any) -> bool:
        raise OSError("the disk is gone")


def test_a_broken_store_does_not_change_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training ends with the same bytes as without telemetry."""
    monkeypatch.setattr(writer, "RETRY_S", (0.01,))
    bare = train(FedAvg(), fleet())
    book = recorder(BrokenStore())
    result = train(EmissionsStrategy(FedAvg(), book), fleet(emissions_kg=0.002))
    assert bytes_of(result.arrays) == bytes_of(bare.arrays)
    assert book.errors["store"] >= 3


class BrokenClock(HandClock):
    """Tells the time until the run has begun, and then raises."""

    broken = False

    def __call__(self) -> float:
        if self.broken:
            raise RuntimeError("the clock is broken")
        return super().__call__()


def test_a_fault_of_ours_in_every_call_does_not_change_the_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever the recorder does on the training's time raises: counted each time, said once."""
    bare = train(FedAvg(), fleet())
    clock = BrokenClock()
    book = recorder(clock=clock)
    book.start()
    clock.broken = True
    with caplog.at_level(logging.WARNING):
        result = train(EmissionsStrategy(FedAvg(), book), fleet(emissions_kg=0.002))
    assert bytes_of(result.arrays) == bytes_of(bare.arrays)
    assert book.errors["hook"] >= 3
    assert sum("telemetry (hook)" in r.getMessage() for r in caplog.records) == 1


def test_a_late_reply_is_taken_apart_like_any_other() -> None:
    """Its report counts where it arrives."""
    store = InMemoryStore()
    book = recorder(store)
    strategy = EmissionsStrategy(FedAvg(), book)
    grid = LocalGrid({1: trains(), 2: trains(emissions=0.004)})
    messages = list(strategy.configure_train(1, model(), ConfigRecord(), grid))
    late = next(m for m in grid.send_and_receive(messages) if m.metadata.src_node_id == 2)
    strategy.configure_train(2, model(), ConfigRecord(), grid)
    strategy.late_reply(late, "train", 1, 0.0)
    book.finish("completed")
    assert store.round(book.run.run_id, 2).report_count("late") == 1
    assert store.round(book.run.run_id, 1).clients_emissions_kg is None


def test_wrap_is_the_two_line_form(tmp_path: Any) -> None:
    """A URL and a country are enough: the run is in the file afterwards, with its factors."""
    from telemetry.store import open_store

    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    strategy = EmissionsStrategy.wrap(FedAvg(), store=url, country="ESP")
    strategy.start(LocalGrid({1: trains(emissions=1e-9), 2: trains()}), model(), num_rounds=2)
    store = open_store(url)
    (run,) = store.runs()
    assert run.status == "completed"
    assert run.info.factors.country == "ESP"
    assert run.info.tracker is not None
    assert run.info.tracker.startswith("codecarbon")
    assert [row.round for row in store.rounds(run.run_id)] == [0, 1, 2]
    store.close()


@pytest.mark.parametrize("scope", ["process", "allocation", "machine"])
def test_the_scope_of_the_server_is_chosen_said_and_recorded(
    caplog: pytest.LogCaptureFixture, scope: ServerScope
) -> None:
    """One line when it is chosen; the record has it, and a share says of what it is one."""
    caplog.set_level(logging.INFO, "fedserver_hooks")
    store = InMemoryStore()
    strategy = EmissionsStrategy.wrap(FedAvg(), store=store, country="ESP", server_scope=scope)
    (line,) = [r.getMessage() for r in caplog.records if "server_scope" in r.getMessage()]
    words = "the whole machine" if scope == "machine" else scope
    assert line.startswith(f"the server's figure is of: {words}")
    strategy.start(LocalGrid({1: trains(), 2: trains()}), model(), num_rounds=1)
    (run,) = store.runs()
    assert run.info.factors.server_scope == scope
    rows = list(store.rounds(run.run_id))
    assert {row.factors.server_scope for row in rows} == {scope}
    for row in rows:
        share = row.factors.server_share
        assert share is None if scope == "machine" else share is not None and 0 < share <= 1
    assert all(row.host_energy_kwh is not None for row in rows)


def test_a_scope_that_this_machine_does_not_have_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before a store is opened."""

    def refuse(scope: ServerScope) -> None:
        raise ScopeUnavailable(scope, "no /proc")

    monkeypatch.setattr("fedserver_hooks.setup.choose", refuse)
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with pytest.raises(TelemetryError, match="process is not available here: no /proc"):
        EmissionsStrategy.wrap(FedAvg(), store=url, server_scope="process")
    assert not list(tmp_path.iterdir())


def test_empty_replies_pass() -> None:
    """No reply at all is nothing aggregated, not an error of ours."""
    book = recorder()
    strategy = EmissionsStrategy(FedAvg(), book)
    strategy.configure_train(1, model(), ConfigRecord(), LocalGrid({1: trains(), 2: trains()}))
    assert strategy.aggregate_train(1, []) == (None, None)
    content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
    assert content is not None
    book.finish("failed")
