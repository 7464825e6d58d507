"""The budget is watched beside the training: what goes wrong there neither delays nor ends a round."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg

from fedserver_hooks import budget
from fedserver_hooks.budget import BudgetWatch
from fedserver_hooks.meter import NullMeter, ReplayMeter
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.setup import resumed_recorder
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import ExposedRun, Owner, RoundRecord, RoundSummary
from telemetry.errors import StoreError
from telemetry.store.memory import InMemoryStore
from tests.fedserver.fakes import bytes_of
from tests.fedserver_hooks.fakes import HandClock, LocalGrid, model, recorder, trains

LONGEST_S = 0.25 + 0.2
"""What a round may wait for a verdict, and what a busy machine may add."""
KG = 0.001


class SlowStore(InMemoryStore):
    """Answers what is exposed only once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """As ever, but late."""
        self.go.wait(20)
        return super().exposed(now, owner, max_runs=max_runs, max_rounds=max_rounds)


class FailingStore(InMemoryStore):
    """A database that cannot be read; or written either."""

    def __init__(self, *, writes: bool) -> None:
        super().__init__()
        self.writes = writes

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """Raises."""
        raise StoreError(self.url, "made to fail")

    def record_round(self, record: RoundRecord) -> bool:
        """Raises where it must not be written."""
        if self.writes:
            return super().record_round(record)
        raise StoreError(self.url, "made to fail")


class WithoutRows(InMemoryStore):
    """Keeps no row of any client, as with ``telemetry.client_rows: false``."""

    def record_round(self, record: RoundRecord) -> bool:
        """The sums of a round."""
        return super().record_round(record.model_copy(update={"client_rows": False}))


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine gets its verdict too."""
    monkeypatch.setattr(budget, "WAIT_S", 20.0)


def watched(
    store: InMemoryStore, budget_kg: float, *, trusted: bool = False, **run: Any
) -> tuple[RoundRecorder, BudgetWatch]:
    """A started recorder without a meter's energy, and who watches its budget."""
    watch = BudgetWatch(budget_kg, trusted=trusted)
    clock = HandClock()
    book = recorder(
        store,
        clock=clock,
        meter=ReplayMeter(0.0, clock=clock),
        on_round_closed=watch.closed,
        **{"budget_kg": budget_kg, "on_budget": "stop", **run},
    )
    watch.watch(book)
    book.start()
    return book, watch


def play(book: RoundRecorder, number: int, reported_kg: Sequence[float]) -> None:
    """A round in which so many clients report so much, each from a host of its own."""
    nodes = range(1, len(reported_kg) + 1)
    book.begin_round(number)
    book.sent("train", list(nodes))
    book.enter("wait")
    book.replies(
        "train",
        [
            (node, {"emissions_kg": kg, "host_id": f"h{node}"}, {"num-examples": 1})
            for node, kg in zip(nodes, reported_kg, strict=True)
        ],
    )
    book.aggregated(True, {})


@pytest.fixture
def books() -> Iterator[list[RoundRecorder]]:
    """Recorders to be ended."""
    started: list[RoundRecorder] = []
    yield started
    for book in started:
        book.finish("completed")


@pytest.mark.usefixtures("patient")
def test_the_round_just_played_counts_before_it_closes(books: list[RoundRecorder]) -> None:
    """It ends only when the next begins, and the question is whether that may."""
    book, watch = watched(InMemoryStore(), 7 * KG)
    books.append(book)
    assert watch.may_go_on(1) is None
    play(book, 1, [KG] * 4)
    assert book.store.run(book.run.run_id).totals.rounds == {}, "it is still open"
    said = watch.may_go_on(2)
    assert said is not None
    assert said.startswith(
        "stopped before round 2: 4.00 g of the budget of 7.00 g are spent (57 %)"
    )


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(("store", "stops"), [(InMemoryStore, True), (WithoutRows, False)])
def test_who_reported_is_known_from_the_first_round_on(
    books: list[RoundRecorder], store: type[InMemoryStore], stops: bool
) -> None:
    """Without rows of clients, the round just played may all be one client's until it has closed."""
    book, watch = watched(store(), 7 * KG)
    books.append(book)
    play(book, 1, [KG] * 4)
    assert (watch.may_go_on(2) is not None) == stops
    for number in (2, 3):
        play(book, number, [KG / 4] * 4)
    assert watch.may_go_on(4) is not None, "by then the first rounds have closed"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("store", "words"),
    [(FailingStore(writes=True), "the budget cannot be looked at"),
     (FailingStore(writes=False), "the record lags behind")],
    ids=["unreadable", "unwritable"],
)  # fmt: skip
def test_a_store_that_fails_stops_nobody(
    books: list[RoundRecorder],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    store: FailingStore,
    words: str,
) -> None:
    """The training goes on over its budget, and that is said once."""
    monkeypatch.setattr(budget, "SETTLE_S", 0.1)
    book, watch = watched(store, KG, trusted=True)
    books.append(book)
    for number in (1, 2, 3):
        assert watch.may_go_on(number) is None
        play(book, number, [KG] * 4)
    (line,) = [r.getMessage() for r in caplog.records if words in r.getMessage()]
    assert "StoreError(" not in line, "a failure that is foreseen is a sentence"
    if not store.writes:
        book.leftovers()


def test_a_verdict_that_takes_long_holds_before_the_next_round(
    books: list[RoundRecorder], caplog: pytest.LogCaptureFixture
) -> None:
    """A round waits 250 ms for it, once; when it is there, it counts."""
    store = SlowStore()
    book, watch = watched(store, 5 * KG, trusted=True)
    books.append(book)
    play(book, 1, [KG] * 4)
    waited = []
    for number in (2, 3, 4):
        began = time.monotonic()
        assert watch.may_go_on(number) is None
        waited.append(time.monotonic() - began)
        play(book, number, [KG] * 4)
    assert waited[0] < LONGEST_S
    assert max(waited[1:]) < 0.1, "it is not waited for again"
    assert sum("no verdict on the budget" in r.getMessage() for r in caplog.records) == 1
    assert watch._asking is not None
    store.go.set()
    watch._asking.join(20)
    said = watch.may_go_on(5)
    assert said is not None
    assert said.startswith("stopped before round 5: ")


@pytest.mark.usefixtures("patient")
def test_a_resumed_run_has_spent_what_all_its_attempts_have(books: list[RoundRecorder]) -> None:
    """3 and 3 of 10 before the interruption: the next round of 3 may be played, one more may not."""
    store = InMemoryStore()
    book, _ = watched(store, 10 * KG)
    for number in (1, 2):
        play(book, number, [KG] * 3)
    book.finish("interrupted")
    book.release()

    again = BudgetWatch(10 * KG)
    book = resumed_recorder(store, book.run.run_id, meter=NullMeter(), on_round_closed=again.closed)
    again.watch(book, resumed=True)
    book.start()
    books.append(book)
    verdict = again.before_round(3)
    assert verdict is not None
    assert verdict.spent_kg == pytest.approx(6 * KG)
    assert verdict.action == "ok"
    play(book, 3, [KG] * 3)
    assert again.may_go_on(4) is not None, "9 are spent, and 3 to come"


@pytest.mark.usefixtures("patient")
def test_reports_of_nothing_are_reports(books: list[RoundRecorder]) -> None:
    """A client that says 0 has reported: three of them are no longer few."""
    book, watch = watched(InMemoryStore(), 5 * KG)
    books.append(book)
    play(book, 1, [0.0, 1.4 * KG, 1.4 * KG, 0.0])
    play(book, 2, [0.0, 1.4 * KG, 1.4 * KG, 0.0])
    assert watch.may_go_on(3) is not None


class Bomb(InMemoryStore):
    """A store with a fault of our own."""

    def exposed(
        self, now: datetime, owner: Owner | None, *, max_runs: int, max_rounds: int
    ) -> Sequence[ExposedRun]:
        """Raises what no store may."""
        raise ZeroDivisionError

    def rounds(
        self, run_id: str, *, closed_only: bool = True, start: tuple[int, int] | None = None
    ) -> Iterator[RoundSummary]:
        """Likewise."""
        raise ZeroDivisionError


def test_a_fault_of_ours_stops_nobody(books: list[RoundRecorder]) -> None:
    """Whatever is raised while a budget is judged, the loop gets an answer."""
    book, watch = watched(Bomb(), KG, trusted=True)
    books.append(book)
    play(book, 1, [KG] * 4)
    assert watch.may_go_on(2) is None


def test_wrap_warns_and_plays_every_round(caplog: pytest.LogCaptureFixture) -> None:
    """Flower's own loop is not stopped; its model is that of a run without a budget."""
    fleet = {node: trains(add=node, emissions=KG) for node in (1, 2, 3)}
    random.seed(7)  # FedAvg draws its clients, and sums depend on their order
    bare = FedAvg().start(LocalGrid(fleet), model(), num_rounds=3)
    store = InMemoryStore()
    random.seed(7)
    strategy = EmissionsStrategy.wrap(FedAvg(), store=store, country="ESP", budget_kg=5 * KG)
    result = strategy.start(LocalGrid(fleet), model(), num_rounds=3)
    (run,) = store.runs()
    assert (run.status, sum(run.totals.rounds.values())) == ("completed", 3)
    assert (run.info.budget_kg, run.info.on_budget) == (5 * KG, "warn")
    assert bytes_of(result.arrays) == bytes_of(bare.arrays)
    lines = [r.getMessage() for r in caplog.records if "of the budget" in r.getMessage()]
    assert any("9.00 g of the budget of 5.00 g" in line or "6.00 g of" in line for line in lines)
    assert all(
        r.levelno == logging.WARNING for r in caplog.records if "of the budget" in r.getMessage()
    )
