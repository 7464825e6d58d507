"""Where runs are kept: `open_store` opens a store by its URL.

A backend is one module that keeps the promises of `telemetry.store.base.Store` and one line in
`BACKENDS`; it is imported when it is opened, so that nobody pays for a database they do not use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from telemetry.errors import StoreError
from telemetry.store.base import LEASE_EXPIRES_S, LEASE_RENEW_S, Store

__all__ = [
    "BACKENDS",
    "LEASE_EXPIRES_S",
    "LEASE_RENEW_S",
    "Location",
    "Store",
    "open_store",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """What is asked of a backend: where, and how to open it."""

    url: str
    create: bool = True
    """Whether to make a store where there is none."""
    busy_timeout_s: float = 5.0
    """How long to wait for a lock that another process holds."""


def _memory(_: Location) -> Store:
    from telemetry.store.memory import InMemoryStore

    return InMemoryStore()


def _sqlite(location: Location) -> Store:
    from telemetry.store.sql.sqlite import open_sqlite

    return open_sqlite(location.url, create=location.create, busy_timeout_s=location.busy_timeout_s)


def _postgres(location: Location) -> Store:
    from telemetry.store.sql.postgres import open_postgres

    return open_postgres(
        location.url, create=location.create, busy_timeout_s=location.busy_timeout_s
    )


BACKENDS: Final[Mapping[str, Callable[[Location], Store]]] = MappingProxyType(
    {
        "memory": _memory,
        "postgresql": _postgres,
        "sqlite": _sqlite,
    }
)
"""URL scheme → what opens it."""


def open_store(url: str, *, create: bool = True, busy_timeout_s: float = 5.0) -> Store:
    """The store at ``url``: ``sqlite:///telemetry.db`` (a path), ``postgresql://…`` or ``memory://``.

    A local SQLite file is created if it is missing (unless ``create`` is False) and brought to this
    program's schema; an empty PostgreSQL database gets its tables, an older one raises
    `SchemaOutdated`. ``busy_timeout_s`` is how long to wait for another process's lock.

    Raises:
        StoreError: it cannot be opened; `SchemaUnknown` if it is no database of ours, or a newer
            one.
    """
    scheme = url.partition(":")[0]
    backend = BACKENDS.get(scheme)
    if backend is None:
        choices = ", ".join(sorted(BACKENDS))
        # Not the whole URL: what is misspelt may well carry a password.
        raise StoreError(f"{scheme[:32]}:…", f"unknown kind of store; known: {choices}")
    return backend(Location(url=url, create=create, busy_timeout_s=busy_timeout_s))
