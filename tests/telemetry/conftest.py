"""Shared by the tests of ``telemetry``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from telemetry.store import open_store
from tests.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file of ours without any run."""
    path = tmp_path_factory.mktemp("empty") / "telemetry.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def sqlite_url(empty_database: Path, tmp_path: Path) -> str:
    """URL of an empty database of one's own, without running the migrations once more."""
    path = tmp_path / "telemetry.db"
    shutil.copy(empty_database, path)
    return f"sqlite:///{path}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the whole session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def empty_postgres(postgres: PostgresServer) -> str:
    """A database of ours without any run, to be copied."""
    name = postgres.create_database()
    open_store(postgres.url(name)).close()
    return name


@pytest.fixture
def postgres_url(postgres: PostgresServer, empty_postgres: str) -> Iterator[str]:
    """URL of an empty database of one's own, without running the migrations once more."""
    name = postgres.create_database(template=empty_postgres)
    yield postgres.url(name)
    postgres.drop_database(name)
