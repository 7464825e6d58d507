"""Every backend keeps the contract of a store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import QueuePool

from telemetry.store import BACKENDS, Store, open_store
from telemetry.store.sql.store import SqlStore
from tests.contracts.store import StoreContract

KINDS = ("memory", "sqlite")


def connections_out(store: Store) -> int:
    """How many connections are still checked out."""
    if not isinstance(store, SqlStore):
        return 0
    pool = store._reader.pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Store]:
    """An empty store of each kind; on exit no connection may be checked out."""
    store = open_store({"memory": "memory://", "sqlite": sqlite_url}[request.param])
    yield store
    assert connections_out(store) == 0
    store.close()


def test_every_backend_is_tested():
    """A new backend cannot be forgotten here."""
    assert set(KINDS) == set(BACKENDS)


class TestStore(StoreContract):
    """The contract, over all of them."""
