"""From what a recorder tells to what is shown."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from fedserver.terminal.facts import Facts
from fedserver.terminal.starting import Ready, ServerWatch, Starting
from fedserver.terminal.view import Start, View
from fedserver.terminal.watching import RunNews, RunWatch, Warned
from fedserver_hooks.events import (
    Began,
    Failed,
    Gone,
    LateReport,
    Over,
    Replied,
    ReplyArrived,
    Seen,
    Sent,
)
from telemetry.exporters.samples import RunView, budget_used_ratio, emissions_so_far_g
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

T0 = START.timestamp()
NAMES = {1: "hospital-a", 2: "hospital-b", 3: "hospital-c"}


def facts(store: InMemoryStore | None = None, **run: Any) -> Facts:
    """Of a run of five rounds that needs three clients, as ``store`` has it or as it begins."""
    if store is None:
        store = InMemoryStore()
        store.start_run(make_run(**run), OWNER, START)
    return Facts(
        run=store.run(RUN_ID),
        rounds=tuple(store.rounds(RUN_ID)),
        planned=5,
        needed=3,
        endpoint="127.0.0.1:5000",
        name=lambda node: NAMES.get(int(node), f"client {node}"),
    )


def after(news: Iterable[RunNews], at: float = T0, **run: Any) -> View:
    """The view once all that has happened."""
    watch = RunWatch(facts(**run))
    for one in news:
        watch.take(one)
    return watch.view(at)


def state_of(view: View) -> dict[str, str]:
    """Each client's state by its name."""
    return {client.name: client.state for client in view.clients}


THREE: list[RunNews] = [Began((0, 1), T0), *map(Seen, NAMES)]
ASKED: list[RunNews] = [*THREE, Began((1, 1), T0 + 10), Sent("train", [1, 2, 3], T0 + 11)]
"""Each is also told of by the transport, when its message goes out."""


def test_until_enough_clients_are_there_it_waits() -> None:
    """Two of three: who they are, and that no round has begun."""
    view = after([Began((0, 1), T0), Seen(1), Seen(2), Gone(2), Seen(3)], T0 + 5)
    assert (view.step, view.round, view.connected, view.needed) == ("waiting", 0, 2, 3)
    assert state_of(view) == {"hospital-a": "idle", "hospital-c": "idle"}
    assert (view.round_s, view.run_s, view.left_s) == (5, 5, None)


def test_a_round_from_its_first_message_to_its_last() -> None:
    """Asked, answered, aggregated, evaluated, and who took how long."""
    watch = RunWatch(facts())
    for news in [*ASKED, Sent("train", [2], T0 + 12), ReplyArrived("train", 2, T0 + 15)]:
        watch.take(news)
    view = watch.view(T0 + 20)
    assert (view.step, view.answered, view.asked) == ("training", 1, 3)
    assert state_of(view) == {
        "hospital-a": "training", "hospital-b": "done", "hospital-c": "training"
    }  # fmt: skip
    assert {client.name: client.seconds for client in view.clients} == {
        "hospital-a": 9, "hospital-b": 3, "hospital-c": 9
    }  # fmt: skip
    assert (view.round_s, view.run_s) == (10, 20)
    watch.take(ReplyArrived("train", 1, T0 + 21))
    watch.take(Failed(3, "no answer within 20 s"))
    watch.take(Replied("train", [], T0 + 31))
    view = watch.view(T0 + 31)
    assert (view.step, view.states["failed"], view.states["done"]) == ("aggregating", 1, 2)
    assert [client.reason for client in view.clients] == [None, None, "no answer within 20 s"]
    watch.take(Sent("evaluate", [1, 2], T0 + 32))
    watch.take(ReplyArrived("evaluate", 1, T0 + 33))
    view = watch.view(T0 + 33)
    assert (view.step, view.answered, view.asked) == ("evaluating", 1, 2)
    assert state_of(view) == {
        "hospital-a": "done", "hospital-b": "evaluating", "hospital-c": "failed"
    }  # fmt: skip
    watch.take(Replied("evaluate", [], T0 + 34))
    assert watch.view(T0 + 34).step == "closing"
    watch.take(Over("completed", T0 + 35))
    assert watch.view(T0 + 35).step == "ending"
    assert watch.view(T0 + 35).left_s is None


def test_who_failed_to_train_stays_failed_while_it_evaluates() -> None:
    """An update that cannot be used does not keep a client from evaluating; both are shown."""
    view = after(
        [
            *ASKED,
            *(ReplyArrived("train", node, T0 + 12) for node in NAMES),
            Failed(2, "layer '0' holds NaN or infinity"),
            Replied("train", [], T0 + 13),
            Sent("evaluate", [1, 2, 3], T0 + 14),
            ReplyArrived("evaluate", 2, T0 + 15),
        ]
    )
    assert state_of(view)["hospital-b"] == "failed"
    assert (view.answered, view.asked) == (1, 3)


def test_a_new_round_begins_anew_but_for_who_is_still_busy() -> None:
    """A client that was given up is busy until it answers, however late, or has left."""
    news = [*ASKED, *(ReplyArrived("train", node, T0 + 12) for node in (1, 2))]
    news += [Failed(3, "no answer within 20 s"), Began((2, 1), T0 + 40)]
    view = after(news, T0 + 40.5)
    assert state_of(view) == {"hospital-a": "idle", "hospital-b": "idle", "hospital-c": "busy"}
    assert (view.asked, view.answered, view.round_s) == (0, 0, 0.5)
    late = LateReport("train", 3, {}, 1, T0 + 11, T0 + 41)
    assert state_of(after([*news, late, Began((3, 1), T0 + 60)]))["hospital-c"] == "idle"
    assert "hospital-c" not in state_of(after([*news, Gone(3)]))


def test_who_left_in_a_round_is_shown_until_the_round_is_over() -> None:
    """With what became of it; it is not connected any more."""
    view = after([*ASKED, Failed(1, "the connection closed"), Gone(1)])
    assert view.connected == 2
    assert state_of(view)["hospital-a"] == "failed"
    assert "hospital-a" not in state_of(after([*ASKED, Gone(1), Began((2, 1), T0 + 50)]))


def test_a_round_that_nobody_is_asked_in_waits_for_clients() -> None:
    """At once where too few are there, after a moment where those there are busy."""
    begun = [*THREE, Began((1, 1), T0 + 10)]
    assert after(begun, T0 + 10.1).step == "preparing"
    assert after(begun, T0 + 12).step == "waiting"
    assert after([*begun, Gone(3)], T0 + 10.1).step == "waiting"


def closed(number: int, seconds: float = 60.0, **more: Any) -> Any:
    """A round that took so long, with one client of a gram."""
    began = START + timedelta(seconds=100 * number)
    values: dict[str, Any] = {
        "clients": {"a": 0.001, "b": "missing"},
        "started_at": began,
        "ended_at": began + timedelta(seconds=seconds),
        "evaluate_metrics": {"accuracy": 0.5 + number / 100, "loss": 1 / number if number else 9},
    }
    return make_round(number, **{**values, **more})


def test_a_round_is_expected_to_take_what_rounds_took_lately() -> None:
    """The median of the last five; one that waited long for a client does not count for more."""
    took = [500, 10, 10, 12, 12, 3600]
    rounds = [closed(number, seconds) for number, seconds in enumerate(took, 1)]
    view = after([*THREE, closed(0, 999), *rounds, Began((5, 1), T0)], T0 + 4)
    assert view.expected_s == 12
    assert view.left_s == 8
    assert after(THREE).expected_s is None


def test_left_is_what_is_expected_of_the_rounds_left() -> None:
    """The running one is not over before it is over, however long it takes."""
    news = [*THREE, closed(1, 60), Began((2, 1), T0)]
    assert after(news, T0 + 20).left_s == 40 + 3 * 60
    assert after(news, T0 + 90).left_s == 3 * 60


def test_metrics_are_the_last_and_the_best_and_the_way_there() -> None:
    """A loss is best where it is least."""
    rounds = [closed(1), closed(2, evaluate_metrics={"accuracy": 0.9, "loss": 0.1}), closed(3)]
    view = after([*THREE, *rounds])
    assert [(m.name, m.last, m.best, m.best_round) for m in view.metrics] == [
        ("accuracy", 0.53, 0.9, 2),
        ("loss", 1 / 3, 0.1, 2),
    ]
    assert view.metrics[0].history == (0.51, 0.9, 0.53)


def test_the_footprint_is_that_of_metrics(tmp_path: Any) -> None:
    """After each record, an open one too: as /metrics would say it of the store. To the last digit."""
    store = InMemoryStore()
    run = make_run(budget_kg=0.01)
    store.start_run(run, OWNER, START)
    watch = RunWatch(facts(budget_kg=0.01))
    records = [
        closed(0, clients=None),
        closed(1, closed=False, status="running", clients={"a": 0.0005}),
        closed(1, revision=2),
        closed(2, closed=False, status="running"),
        closed(2, revision=2, server_kwh=None, clients={"a": "negative", "b": "missing"}),
        closed(3),
    ]
    for record in records:
        watch.take(record)
        store.record_round(record)
        [exposed] = store.exposed(START, OWNER, max_runs=5, max_rounds=200)
        of_store = RunView(exposed, START, OWNER)
        shown = watch.view(T0).footprint
        assert shown is not None
        so_far_g = emissions_so_far_g(of_store)
        assert shown.total_kg == (None if so_far_g is None else so_far_g / 1000)
        assert shown.budget_used == budget_used_ratio(of_store)
        last = of_store.last_closed
        if last is not None:
            assert shown.coverage == (last.reported, last.participants)
            assert shown.coverage_round == last.round
            assert shown.rejected == last.rejected
    assert shown is not None
    first, second, third = shown.rounds_kg
    assert second is None
    assert [first, third] == pytest.approx([0.001174, 0.001174])
    assert shown.note == "modelled; no power sensor on the server"


def test_a_resumed_run_shows_what_is_behind_it() -> None:
    """Its grams, its metrics, its best, and how long its rounds took."""
    store = InMemoryStore()
    store.start_run(make_run(), OWNER, START)
    for number in range(3):
        store.record_round(closed(number))
    watch = RunWatch(facts(store))
    watch.take(Began((0, 2), T0 + 5000))
    watch.take(closed(0, attempt=2, clients=None))
    watch.take(Began((3, 1), T0 + 5100))
    watch.take(closed(2, attempt=2, evaluate_metrics={"accuracy": 0.6}))
    view = watch.view(T0 + 5110)
    assert view.run_s == 110
    assert view.expected_s == 60
    assert view.footprint is not None
    store.record_round(closed(0, attempt=2, clients=None))
    store.record_round(closed(2, attempt=2, evaluate_metrics={"accuracy": 0.6}))
    assert view.footprint.total_kg == store.run(RUN_ID).totals.total_emissions_kg
    assert view.metrics[0].history == (0.51, 0.6)


def test_without_tracking_there_is_no_footprint() -> None:
    """Nothing about emissions is shown, and the training is."""
    view = after([*THREE, closed(1, tracked=False, clients={})], tracked=False)
    assert view.footprint is None
    assert view.metrics


def test_failed_rounds_and_warnings_are_counted() -> None:
    """The last warning is kept; a failed round is one without a new model."""
    view = after([*THREE, closed(1, status="failed"), Warned("first"), Warned("second")])
    assert view.failed_rounds == 1
    assert (view.warnings, view.last_warning) == (2, "second")


def test_of_a_large_fleet_failed_and_slow_ones_are_at_hand() -> None:
    """Those at work longest first; a view does not grow with the fleet."""
    nodes = list(range(1, 2001))
    news: list[RunNews] = [Began((0, 1), T0), *map(Seen, nodes), Began((1, 1), T0)]
    news += [Sent("train", [node], T0 + node / 1000) for node in nodes]
    news += [ReplyArrived("train", node, T0 + 10) for node in range(500, 2001)]
    news += [Failed(node, "out of memory") for node in range(700, 800)]
    view = after(news, T0 + 20)
    assert len(view.clients) == 40
    assert {client.state for client in view.clients[:20]} == {"failed"}
    assert [client.number for client in view.clients[20:]] == list(range(1, 21))
    assert view.states == {"training": 499, "done": 1401, "failed": 100}


def test_a_server_is_followed_from_its_start() -> None:
    """Step by step; what happened before it was ready is not lost."""
    watch = ServerWatch(T0)
    watch.take(Starting("the power meter", 2, 3))
    assert watch.view(T0 + 3) == Start(what="the power meter", done=1, of=3, seconds=3)
    for news in THREE:
        watch.take(news)
    assert isinstance(watch.view(T0), Start)
    watch.take(Ready(facts))
    view = watch.view(T0)
    assert isinstance(view, View)
    assert view.connected == 3
