"""Whoever watches a run is handed what happens and what was made of it, and cannot harm it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fedserver_hooks import events
from fedserver_hooks.meter import ReplayMeter
from fedserver_hooks.reader import InlineReader
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import RoundRecord
from telemetry.store.memory import InMemoryStore
from telemetry.testing import make_run
from tests.fedserver_hooks.fakes import HandClock


def watched(
    watch: Callable[[events.Event | RoundRecord], None], store: InMemoryStore
) -> RoundRecorder:
    """One round with one client that fails, seen by ``watch``."""
    clock = HandClock()
    book = RoundRecorder(
        make_run(), store, ReplayMeter(100.0, clock=clock), clock=clock, reader=InlineReader,
        watch=watch,
    )  # fmt: skip
    book.start()
    book.seen(1, "a", True)
    clock.advance(1)
    book.begin_round(1)
    book.sent("train", [1])
    assert book.settle(5.0)
    book.replied(1, "train", clock.now, 10)
    book.failed(1, "out of memory")
    book.replies("train", [])
    book.aggregated(False, None)
    book.gone(1)
    book.finish("failed")
    return book


def test_it_is_handed_every_event_in_order_and_every_record() -> None:
    """Events as they happen; each round's record closed at its end, and open before."""
    handed: list[Any] = []
    store = InMemoryStore()
    book = watched(handed.append, store)
    told = [item for item in handed if not isinstance(item, RoundRecord)]
    assert [type(item) for item in told] == [
        events.Began, events.Seen, events.Began, events.Sent, events.ReplyArrived, events.Failed,
        events.Replied, events.Gone, events.Over,
    ]  # fmt: skip
    assert [item.key for item in told if isinstance(item, events.Began)] == [(0, 1), (1, 1)]
    assert told[-1].status == "failed"
    records = [item for item in handed if isinstance(item, RoundRecord)]
    assert [record.round for record in records if record.closed] == [0, 1]
    assert [r.summary(0.0) for r in records if r.closed][-1].total_emissions_kg == next(
        row.total_emissions_kg for row in store.rounds(book.run.run_id) if row.round == 1
    )
    assert any(not record.closed for record in records)


def test_one_that_raises_is_counted_and_the_record_is_the_same() -> None:
    """In whichever thread it raises."""

    def raises(_: object) -> None:
        raise ValueError("no terminal")

    with_one, without = InMemoryStore(), InMemoryStore()
    book = watched(raises, with_one)
    watched(lambda _: None, without)
    assert book.failures.counts["hook"] > 0
    [row] = [r for r in with_one.rounds(book.run.run_id) if r.round == 1]
    [plain] = [r for r in without.rounds(book.run.run_id) if r.round == 1]
    assert replace(row, evidence_sha256=None) == replace(
        plain, evidence_sha256=None
    )  # secrets differ
    assert with_one.run(book.run.run_id).status == "failed"
