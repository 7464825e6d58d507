"""A simulation's one measurement, split over its clients by CPU time."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedserver_hooks.meter import Meter, MeterError, ReplayMeter
from fedserver_hooks.simulation import CPU_TIME_KEY, SimulationStrategy, cpu_time_mod
from telemetry.domain import RoundRecord
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run
from tests.fedserver_hooks.fakes import HandClock, LocalGrid, Reply, fails, model, recorder, trains

WATTS = 100.0
ROUND_KWH = WATTS * 60 / 3.6e6
"""A minute of training. By the hand clock a round has a second one, for an evaluation by nobody."""


class BusyMachine:
    """CPU time of everybody on a machine that always has so many CPUs at work."""

    def __init__(self, clock: HandClock, cpus: float) -> None:
        self.clock = clock
        self.cpus = cpus

    def __call__(self) -> float:
        return self.clock.now * self.cpus


def averaging() -> FedAvg:
    """Trains with as few clients as there are, and does not evaluate."""
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def used(cpu_time_s: Any, **other: Any) -> Reply:
    """A client that trains and says how much CPU time it took."""
    trained = trains(0.5, 10, **other)

    def answer(message: Message) -> Message:
        reply = trained(message)
        reply.content[CPU_TIME_KEY] = ConfigRecord({"cpu_time_s": cpu_time_s})
        return reply

    return answer


def simulate(
    nodes: dict[int, Reply], *, busy_cpus: float = 2.0, meter: Meter | None = None, **run: Any
) -> tuple[RoundRecord, SimulationStrategy]:
    """The first of two rounds that only train."""
    clock = HandClock()
    store = InMemoryStore()
    book = recorder(store, clock=clock, meter=meter or ReplayMeter(WATTS, clock=clock), **run)
    strategy = SimulationStrategy(
        averaging(), book, busy_s=BusyMachine(clock, busy_cpus), clock=clock
    )
    strategy.start(LocalGrid(nodes, clock), model(), num_rounds=2)
    assert book.errors == {}
    return store.round(book.run.run_id, 1), strategy


def counted_kwh(record: RoundRecord) -> dict[str, float | None]:
    """What each client counts for."""
    return {r.node_id: r.counted_energy_kwh for r in record.accepted}


def test_the_machines_energy_is_split_by_cpu_time() -> None:
    """Of 120 CPU seconds, clients took 60, 30 and 6: so much of the energy, the rest is the server's."""
    record, _ = simulate({1: used(60.0), 2: used(30.0), 3: used(6.0)})
    assert counted_kwh(record) == pytest.approx(
        {"1": ROUND_KWH * 60 / 120, "2": ROUND_KWH * 30 / 120, "3": ROUND_KWH * 6 / 120}, rel=1e-6
    )
    assert record.host_energy_kwh == pytest.approx(2 * ROUND_KWH)
    assert record.server_energy_kwh == pytest.approx(ROUND_KWH * (1 + 24 / 120), rel=1e-6)
    assert {r.scope for r in record.accepted} == {"process"}
    assert record.outcomes == {"reported": 3}
    turns = sorted((r.started_at, r.ended_at) for r in record.accepted)
    for (_, ended), (started, _) in pairwise(
        turns
    ):  # no moment of the measurement is claimed twice
        assert ended == started


def test_the_two_line_form_is_of_the_whole_machine_and_may_have_a_budget() -> None:
    """In a container with limits, too: a share could not be split over clients."""
    strategy = SimulationStrategy.wrap(averaging(), InMemoryStore(), "ESP", budget_kg=1.0)
    assert isinstance(strategy, SimulationStrategy)
    assert strategy.recorder.meter.scope == "machine"
    assert strategy.budget is not None


@pytest.mark.parametrize("clients", [1, 4, 16, 1000])
def test_however_many_clients_the_total_is_the_machines(clients: int) -> None:
    """Each takes the same CPU time; together they and the server are what the one meter showed."""
    record, _ = simulate({n: used(96.0 / clients) for n in range(1, clients + 1)})
    assert record.clients_energy_kwh == pytest.approx(ROUND_KWH * 0.8, rel=1e-3)
    assert record.server_energy_kwh == pytest.approx(ROUND_KWH * 1.2, rel=1e-3)


def test_clients_never_take_more_than_the_machine_had() -> None:
    """Counters that disagree: the machine's is coarser than the processes'."""
    record, _ = simulate({1: used(100.0), 2: used(50.0)}, busy_cpus=2.0)
    assert counted_kwh(record) == pytest.approx(
        {"1": ROUND_KWH * 2 / 3, "2": ROUND_KWH / 3}, rel=1e-6
    )
    assert record.server_energy_kwh == pytest.approx(ROUND_KWH, rel=1e-6)


@pytest.mark.parametrize("said", [0.0, -1.0, float("nan"), float("inf"), "60", 1])
def test_a_client_that_says_no_cpu_time_is_missing(said: Any) -> None:
    """What is no positive number of seconds is no report, and nothing of it reaches the strategy."""
    record, _ = simulate({1: used(60.0), 2: used(said)})
    assert counted_kwh(record) == pytest.approx({"1": ROUND_KWH / 2}, rel=1e-6)
    assert record.outcomes == {"reported": 1, "missing": 1}


def test_a_client_that_fails_takes_nothing_from_the_others() -> None:
    """An error reply has no content; its CPU time stays with the server."""
    record, _ = simulate({1: used(60.0), 2: fails()})
    assert counted_kwh(record) == pytest.approx({"1": ROUND_KWH / 2}, rel=1e-6)
    assert record.outcomes == {"reported": 1, "failed": 1}


@pytest.mark.parametrize(
    ("meter", "run", "reason"),
    [
        (ReplayMeter(script=[MeterError("no sensor")]), {}, "no sensor"),
        (None, {"server_host_id": None}, "nothing names this machine"),
    ],
)
def test_without_a_figure_to_split_clients_are_missing(
    meter: Meter | None, run: dict[str, Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is guessed, training goes on, and one WARNING says why."""
    clock = HandClock()
    store = InMemoryStore()
    meter = meter or ReplayMeter(WATTS, clock=clock)
    book = recorder(store, clock=clock, meter=meter, **run)
    strategy = SimulationStrategy(averaging(), book, busy_s=lambda: 1.0, clock=clock)
    with caplog.at_level(logging.WARNING, "fedserver_hooks.simulation"):
        result = strategy.start(LocalGrid({1: used(60.0), 2: used(9.0)}, clock), model(), 2)
    assert len(result.train_metrics_clientapp) == 2
    assert store.round(book.run.run_id, 1).outcomes == {"missing": 2}
    warnings = [r.getMessage() for r in caplog.records if r.name == "fedserver_hooks.simulation"]
    assert len(warnings) == 1
    assert reason in warnings[0]


def test_a_figure_that_is_not_the_machines_is_not_split() -> None:
    """A share of a machine has the clients' part in it already, or it has not: nobody knows."""
    meter = ReplayMeter(WATTS)
    meter.scope = "allocation"
    record, _ = simulate({1: used(60.0)}, meter=meter)
    assert record.outcomes == {"missing": 1}


class Spy(FedAvg):
    """Keeps the names of the records that reach it."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.seen: set[str] = set()

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        kept = list(replies)
        self.seen.update(name for reply in kept for name in reply.content)
        return super().aggregate_train(server_round, kept)


@pytest.mark.parametrize("tracked", [True, False])
def test_the_strategy_inside_sees_neither_cpu_time_nor_report(tracked: bool) -> None:
    """Whether emissions are tracked or not; and without tracking nothing is split."""
    clock = HandClock()
    store = InMemoryStore()
    meter = ReplayMeter(WATTS, clock=clock)
    book = recorder(store, clock=clock, meter=meter, tracked=tracked)
    spy = Spy()
    SimulationStrategy(spy, book, busy_s=BusyMachine(clock, 2.0), clock=clock).start(
        LocalGrid({1: used(60.0)}, clock), model(), num_rounds=2
    )
    assert spy.seen == {"arrays", "metrics"}
    assert len(store.round(book.run.run_id, 1).reports) == tracked


def test_the_mod_says_what_cpu_time_a_message_took() -> None:
    """About what the work took, measured by the process itself; the rest of the reply stays."""
    import time

    from flwr.app import ConfigRecord as Config

    asked = Message(RecordDict({"config": Config({"server-round": 1})}), 1, "train")

    def work(message: Message, _: Context) -> Message:
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        time.sleep(0.1)  # is no CPU time
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    context = Context(1, 1, {}, RecordDict(), {})
    reply = cpu_time_mod(asked, context, work)
    record = reply.content[CPU_TIME_KEY]
    assert isinstance(record, ConfigRecord)
    assert record["cpu_time_s"] == pytest.approx(0.2, abs=0.05)
    assert "metrics" in reply.content
    failed = cpu_time_mod(asked, context, lambda message, _: fails()(message))
    assert failed.has_error()


def test_the_model_is_the_same_with_it_and_without() -> None:
    """What the mod adds is taken out before the strategy looks."""
    bare = averaging().start(LocalGrid({1: trains(0.5)}), model(), num_rounds=2)
    clock = HandClock()
    strategy = SimulationStrategy(
        averaging(), recorder(clock=clock, run_id=make_run().run_id),
        busy_s=BusyMachine(clock, 1), clock=clock,
    )  # fmt: skip
    split = strategy.start(LocalGrid({1: used(5.0)}, clock), model(), num_rounds=2)
    for name, array in bare.arrays.items():
        np.testing.assert_array_equal(split.arrays[name].numpy(), array.numpy())
    assert isinstance(split.arrays, ArrayRecord)
