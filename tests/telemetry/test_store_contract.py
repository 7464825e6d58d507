"""Every backend keeps the contract of a store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import QueuePool

from telemetry.domain import Owner
from telemetry.errors import TelemetryError
from telemetry.store import BACKENDS, Store, open_store
from telemetry.store.sql.store import SqlStore
from telemetry.testing import START, make_round, make_run
from tests import strategies
from tests.contracts.delivery import DeliveryContract
from tests.contracts.store import StoreContract

KINDS = ("memory", "sqlite", "postgresql")


URLS = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}
"""Kind of store → the fixture that gives the URL of an empty one."""


def connections_out(store: Store) -> int:
    """How many connections are still checked out."""
    if not isinstance(store, SqlStore):
        return 0
    pool = store._reader.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty store of each kind; on exit no connection may be checked out."""
    kind = request.param
    url = "memory://" if kind == "memory" else request.getfixturevalue(URLS[kind])
    store = open_store(url)
    yield store
    assert connections_out(store) == 0
    store.close()


def test_every_backend_is_tested():
    """A new backend cannot be forgotten here."""
    assert set(KINDS) == set(BACKENDS)


class TestStore(StoreContract):
    """The contract, over all of them."""


class TestDelivery(DeliveryContract):
    """What a service needs of them."""


RUN_IDS = st.sampled_from(["run-a", "run-b"])
MINUTES = st.integers(0, 3).map(lambda minutes: START + timedelta(minutes=minutes))
OWNERS = strategies.owners()
NUMBERS = st.integers(0, 3)
ROUNDS = st.builds(
    lambda number, closed, **facts: make_round(
        number, closed=closed, status="completed" if closed else "running", **facts
    ),
    NUMBERS,
    st.booleans(),
    run_id=RUN_IDS,
    attempt=st.integers(1, 2),
    revision=st.integers(0, 2),
    server_kwh=st.sampled_from([None, 0.25]),
    clients=st.sampled_from([{}, {"1": 0.5}, {"1": "missing"}, {"1": "negative", "2": 0.0}]),
)
SERVICES = st.sampled_from(["https://one.example", "https://two.example"])
STEPS = st.one_of(
    st.tuples(st.just("record_round"), ROUNDS),
    st.tuples(st.just("record_round"), ROUNDS),
    st.tuples(st.just("renew_lease"), RUN_IDS, OWNERS, MINUTES),
    st.tuples(st.just("finish_run"), RUN_IDS, st.just("completed"), MINUTES),
    st.tuples(st.just("release"), RUN_IDS, OWNERS),
    st.tuples(st.just("mark_interrupted"), MINUTES, st.just(lambda owner: owner.pid != 2)),
    st.tuples(st.just("add_late_reports"), RUN_IDS, NUMBERS),
    st.tuples(st.just("mark_announced"), SERVICES, RUN_IDS),
    st.tuples(st.just("mark_ended"), SERVICES, RUN_IDS, MINUTES),
    st.tuples(st.just("resume_run"), RUN_IDS, OWNERS, MINUTES),
    st.tuples(st.just("forget_delivered"), SERVICES, RUN_IDS),
    st.tuples(st.just("deliver_first"), SERVICES),
)


LOOKS = st.tuples(MINUTES, st.none() | OWNERS, NUMBERS)


def done(store: Store, step: tuple[Any, ...]) -> Any:
    """What a method returns, or which error it raises."""
    name, *arguments = step
    if name == "deliver_first":
        return deliver_first(store, *arguments)
    try:
        return getattr(store, name)(*arguments)
    except TelemetryError as error:
        return type(error)


def deliver_first(store: Store, service: str) -> Any:
    """Acknowledge the first round of each run that waits for it."""
    found = store.undelivered(service, START, None)
    for pending in found:
        store.mark_delivered(service, pending.run_id, [r.key for r in pending.rounds[:1]])
    return found


def everything(store: Store, now: datetime, owner: Owner | None, limit: int) -> list[Any]:
    """All that can be read."""
    return [
        store.runs(),
        store.exposed(now, owner, max_runs=limit, max_rounds=limit),
        store.undelivered("https://one.example", now, owner),
        store.undelivered("https://two.example", now, owner),
        *(list(store.rounds(run.run_id, closed_only=False)) for run in store.runs()),
        *(list(store.reports(run.run_id)) for run in store.runs()),
        *(list(store.participants(run.run_id)) for run in store.runs()),
    ]


@given(
    owners=st.tuples(OWNERS, OWNERS),
    steps=st.lists(STEPS, max_size=12),
    look=LOOKS,
)
def test_backends_cannot_be_told_apart(empty_database: Path, owners, steps, look):
    """Whatever is done to them, all backends answer and hold the same."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copy(empty_database, folder)
        with (
            closing(open_store(f"sqlite:///{copy}")) as sql,
            closing(open_store("memory://")) as memory,
        ):
            for store in (sql, memory):
                for run_id, owner in zip(("run-a", "run-b"), owners, strict=True):
                    store.start_run(make_run(run_id), owner, START)
            for step in steps:
                assert done(sql, step) == done(memory, step)
            assert everything(sql, *look) == everything(memory, *look)
