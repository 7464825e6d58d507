"""Shared by the tests of ``telemetry``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from telemetry.store import open_store


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
