"""The writer's thread, over a store that raises what no store should raise."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

import pytest

from telemetry import writer
from telemetry.domain import Owner, RoundRecord, RunStatus
from telemetry.store.memory import InMemoryStore
from telemetry.testing import START, make_round, make_run
from telemetry.writer import Failures, RoundWriter

OWNER = Owner(host="test", pid=1, token="t")
RUN_ID = make_run().run_id
PATIENCE_S = 10.0
PAUSES_S = (0.01, 0.05, 0.05, 0.1)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many tries as ever, sooner."""
    assert len(PAUSES_S) == len(writer.RETRY_S)
    monkeypatch.setattr(writer, "RETRY_S", PAUSES_S)


class OddStore(InMemoryStore):
    """Raises `KeyError` for the rounds in ``odd``, and while ``end_is_odd`` from the run's end."""

    def __init__(self, *odd: int) -> None:
        super().__init__()
        self.odd = set(odd)
        self.end_is_odd = False
        self.tries: list[int] = []
        self.start_run(make_run(), OWNER, START)

    def record_round(self, record: RoundRecord) -> bool:
        self.tries.append(record.round)
        if record.round in self.odd:
            raise KeyError("no such column")
        return super().record_round(record)

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        if self.end_is_odd:
            raise KeyError("no such table")
        super().finish_run(run_id, status, ended_at, reason)

    @property
    def stored(self) -> list[int]:
        """The closed rounds."""
        return [row.round for row in self.rounds(RUN_ID)]


class Writing:
    """A writer at work."""

    def __init__(self, store: OddStore) -> None:
        self.store = store
        self.failures = Failures()
        self.writer = RoundWriter(store, RUN_ID, OWNER, self.failures)
        self.writer.start()

    def submit(self, *numbers: int) -> None:
        """Closed rounds."""
        for number in numbers:
            record = make_round(number)
            self.writer.submit((number, 1), lambda record=record: record, closed=True)  # type: ignore[misc]

    def close(self, timeout_s: float = PATIENCE_S) -> bool:
        """End the run."""
        return self.writer.close(
            timeout_s, lambda: self.store.finish_run(RUN_ID, "completed", START)
        )


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds before patience ends."""
    end = time.monotonic() + PATIENCE_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_the_thread_lives_on_and_the_round_is_delivered_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each failure is counted, the first is logged with its traceback, and the order is kept."""
    store = OddStore(1)
    writing = Writing(store)
    with caplog.at_level(logging.WARNING):
        writing.submit(1, 2)
        assert eventually(lambda: store.tries.count(1) >= 2)
        assert store.stored == []
        assert writing.writer.undelivered_rounds == 2
        store.odd.clear()
        assert writing.writer.barrier(PATIENCE_S)
    assert store.stored == [1, 2]
    assert store.tries[-2:] == [1, 2]
    assert writing.failures.counts["store"] == store.tries.count(1) - 1
    (warning,) = caplog.records
    assert warning.exc_info is not None
    assert "round 1 is not stored yet" in warning.getMessage()
    assert writing.close()


def test_a_round_that_never_works_does_not_hold_up_the_others_or_the_end() -> None:
    """It counts as undelivered to the last, and is handed out for the next start."""
    store = OddStore(1)
    writing = Writing(store)
    writing.submit(1, 2)
    assert eventually(lambda: store.stored == [2])
    writing.submit(3)
    assert not writing.close(), "not everything is delivered"
    assert store.stored == [2, 3]
    assert store.run(RUN_ID).status == "completed"
    assert writing.writer.undelivered_rounds == 1
    assert [record.round for record in writing.writer.abandon()] == [1]
    assert not writing.writer._thread.is_alive()


def test_a_round_that_was_passed_by_is_tried_on() -> None:
    """The store comes to its senses after the next round was written."""
    store = OddStore(1)
    writing = Writing(store)
    writing.submit(1, 2)
    assert eventually(lambda: store.stored == [2])
    store.odd.clear()
    assert eventually(lambda: store.stored == [1, 2])
    assert writing.close()
    assert writing.writer.undelivered_rounds == 0


def test_the_end_of_the_run_is_tried_again_too() -> None:
    """Whatever it raises; after some tries it is given up, and said to be."""
    store = OddStore()
    writing = Writing(store)
    store.end_is_odd = True
    assert not writing.close(timeout_s=0.005)
    store.end_is_odd = False
    assert writing.writer.wait_done(PATIENCE_S)
    assert store.run(RUN_ID).status == "completed"

    hopeless = OddStore()
    hopeless.end_is_odd = True
    writing = Writing(hopeless)
    assert not writing.close()
    assert writing.failures.counts["store"] == len(PAUSES_S)
    assert hopeless.run(RUN_ID).status == "running"


def test_a_record_that_cannot_be_made_is_dropped_and_counted() -> None:
    """Trying again would not help: that is a fault of the accounting, not of the store."""
    store = OddStore()
    writing = Writing(store)

    def broken() -> RoundRecord:
        raise ZeroDivisionError

    writing.writer.submit((1, 1), broken, closed=True)
    writing.submit(2)
    assert writing.writer.barrier(PATIENCE_S)
    assert store.stored == [2]
    assert dict(writing.failures.counts) == {"accounting": 1}
    assert writing.close()


def test_a_run_that_has_ended_is_held_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever shows it last: no other server of the file takes it for abandoned meanwhile."""
    monkeypatch.setattr(writer, "LEASE_RENEW_S", 0.02)
    store = OddStore()
    writing = Writing(store)
    assert writing.close()
    for _ in range(3):
        before = store.run(RUN_ID).last_seen_at
        assert eventually(lambda: store.run(RUN_ID).last_seen_at > before)  # noqa: B023
    store.release(RUN_ID, OWNER)
    assert eventually(lambda: not writing.writer._thread.is_alive())
    assert dict(writing.failures.counts) == {}


def test_who_lets_go_of_a_run_that_has_ended_does_not_wait_for_the_lease() -> None:
    """The thread ends at once."""
    writing = Writing(OddStore())
    assert writing.close()
    before = time.monotonic()
    assert writing.writer.abandon() == []
    assert not writing.writer._thread.is_alive()
    assert time.monotonic() - before < writer.ABANDON_S
