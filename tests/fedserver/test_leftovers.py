"""What a store would not take: kept in a file, and delivered by the next start."""

from __future__ import annotations

import json
import logging
import re
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from fedserver.leftovers import FILE_NAME, deliver, keep
from fedserver_hooks.run_end import Ending
from telemetry.domain import NoiseRecord, Owner, RunStatus
from telemetry.errors import StoreError
from telemetry.store import open_store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import START, make_round, make_run
from telemetry.writer import Failures

RUN_ID = make_run().run_id
ENDING = Ending("completed", START + timedelta(hours=1), None)


class FullStore(InMemoryStore):
    """Cannot end a run for as long as it is ``full``."""

    full = False

    def finish_run(
        self, run_id: str, status: RunStatus, ended_at: datetime, reason: str | None = None
    ) -> None:
        if self.full:
            raise StoreError("memory://", "the disk is full")
        super().finish_run(run_id, status, ended_at, reason)


@pytest.fixture
def store() -> FullStore:
    """With a run whose owner has gone."""
    store = FullStore()
    store.start_run(make_run(), Owner(host="test", pid=1, token="t"), START)
    return store


def kept(tmp_path: Path, *numbers: int) -> Path:
    """A file with these rounds and the run's end."""
    return keep(tmp_path / RUN_ID, RUN_ID, [make_round(n) for n in numbers], ENDING)


def rounds(store: InMemoryStore) -> list[int]:
    """The closed rounds of the run."""
    return [row.round for row in store.rounds(RUN_ID)]


def test_what_was_kept_is_delivered_once_and_whole(tmp_path: Path, store: FullStore) -> None:
    """Rounds as they were, the run's end, and no file is left."""
    path = kept(tmp_path, 1, 2)
    assert path.name == FILE_NAME
    assert deliver(tmp_path, store, Failures()) == 2
    assert store.round(RUN_ID, 2) == make_round(2)
    assert store.run(RUN_ID).status == "completed"
    assert list(path.parent.iterdir()) == []
    assert deliver(tmp_path, store, Failures()) == 0


def test_of_a_run_that_keeps_no_rows_sums_are_kept_and_no_row(tmp_path: Path) -> None:
    """The file names no client, and what is delivered is what the store would have kept."""
    store, other = InMemoryStore(), InMemoryStore()
    clients: dict[str, float | str] = {"node-7": 0.5, "node-8": "negative", "node-9": "missing"}
    record = make_round(
        1, clients=clients, client_rows=False, train_metrics={"loss": 0.5}, reason="made up",
        noise=NoiseRecord(noise_stdv=0.5),
    )  # fmt: skip
    for one in (store, other):
        one.start_run(make_run(client_rows=False), Owner(host="test", pid=1, token="t"), START)
    path = keep(tmp_path / RUN_ID, RUN_ID, [record], ENDING)
    text = path.read_text()
    assert not [word for word in ("node-", "c-", "host-of") if f'"{word}' in text], text
    assert deliver(tmp_path, store, Failures()) == 1
    other.record_round(record)
    other.finish_run(RUN_ID, ENDING.status, ENDING.ended_at, ENDING.reason)
    assert list(store.rounds(RUN_ID)) == list(other.rounds(RUN_ID))
    assert store.run(RUN_ID).totals == other.run(RUN_ID).totals
    assert store.run(RUN_ID).sha256 == other.run(RUN_ID).sha256


def test_a_file_whose_sums_are_of_another_round_is_left(tmp_path: Path, store: FullStore) -> None:
    """As any other that cannot be read."""
    path = keep(tmp_path / RUN_ID, RUN_ID, [make_round(1, client_rows=False)], ENDING)
    content = json.loads(path.read_text())
    content["rounds"][0]["sums"]["round"] = 2
    path.write_text(json.dumps(content))
    assert deliver(tmp_path, store, Failures()) == 0
    assert path.exists()
    assert rounds(store) == []


def test_a_round_that_the_store_has_otherwise_is_set_aside(
    tmp_path: Path, store: FullStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The stored one stands, the others are delivered, and a person can look at the file."""
    theirs = make_round(1, server_kwh=0.5)
    store.record_round(theirs)
    path = kept(tmp_path, 1, 2)
    text = path.read_text()
    with caplog.at_level(logging.WARNING):
        assert deliver(tmp_path, store, Failures()) == 1
    assert store.round(RUN_ID, 1) == theirs
    assert rounds(store) == [1, 2]
    assert store.run(RUN_ID).status == "completed"
    conflict = path.with_name("undelivered.conflict")
    assert list(path.parent.iterdir()) == [conflict]
    assert conflict.read_text() == text
    said = [record.getMessage() for record in caplog.records]
    assert any("round 1 (attempt 1)" in line for line in said)
    assert any(str(conflict) in line for line in said)
    assert deliver(tmp_path, store, Failures()) == 0, "it is not tried again"


def test_a_second_conflict_does_not_replace_the_first(tmp_path: Path, store: FullStore) -> None:
    """A run that was resumed may leave rounds again."""
    store.record_round(make_round(1, server_kwh=0.5))
    first = kept(tmp_path, 1).read_text()
    deliver(tmp_path, store, Failures())
    second = kept(tmp_path, 1, 2).read_text()
    deliver(tmp_path, store, Failures())
    folder = tmp_path / RUN_ID
    assert (folder / "undelivered.conflict").read_text() == first
    assert (folder / "undelivered-2.conflict").read_text() == second


def test_a_conflict_whose_end_cannot_be_stored_is_tried_again(
    tmp_path: Path, store: FullStore
) -> None:
    """The run's end is not lost with the file's new name."""
    store.record_round(make_round(1, server_kwh=0.5))
    path = kept(tmp_path, 1)
    store.full = True
    assert deliver(tmp_path, store, Failures()) == 0
    assert path.exists()
    store.full = False
    deliver(tmp_path, store, Failures())
    assert store.run(RUN_ID).status == "completed"
    assert not path.exists()


def test_sums_that_no_store_can_hold_stop_nothing(tmp_path: Path, store: FullStore) -> None:
    """They pass for a round without rows, and lack what was added since."""
    record = make_round(1, client_rows=False)
    path = keep(tmp_path / RUN_ID, RUN_ID, [record], ENDING)
    content = json.loads(path.read_text())
    content["rounds"][0]["sums"]["phase_energy_kwh"] = {}
    path.write_text(json.dumps(content))
    assert deliver(tmp_path, InMemoryStore(), Failures()) == 0
    with closing(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")) as database:
        database.start_run(make_run(), Owner(host="test", pid=1, token="t"), START)
        assert deliver(tmp_path, database, Failures()) == 0
    assert path.exists()


def test_a_reason_that_is_no_unicode_loses_no_round(tmp_path: Path, store: FullStore) -> None:
    """Half a character of a file's name, say, in an error's words. The end is tried again."""
    ending = Ending("failed", START + timedelta(hours=1), "no file caf\udce9")
    keep(tmp_path / RUN_ID, RUN_ID, [make_round(1)], ending)
    deliver(tmp_path, store, Failures())
    assert rounds(store) == [1]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rounds": 1}', '{"rounds": [{}]}', json.dumps({"rounds": []})]
)
def test_a_file_that_cannot_be_read_stays_and_stops_nothing(
    tmp_path: Path, store: FullStore, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """It may be of another version; the file of the next run is delivered all the same."""
    odd = tmp_path / "0-other-run" / FILE_NAME
    odd.parent.mkdir()
    odd.write_text(text)
    kept(tmp_path, 1)
    failures = Failures()
    with caplog.at_level(logging.WARNING):
        assert deliver(tmp_path, store, failures) == 1
    assert rounds(store) == [1]
    assert odd.read_text() == text
    (message,) = [record.getMessage() for record in caplog.records]
    said = rf"telemetry \(store\): {odd} (is not read|could not be delivered) and stays: "
    assert re.match(said, message)
    assert failures.counts == {"store": 1}
    assert "\n" not in message
    assert [record.exc_info for record in caplog.records] == [None]
