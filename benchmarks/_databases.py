"""The databases that benchmarks write to: a SQLite file, and a PostgreSQL started for the purpose.

Both as they come: every commit is on disk when it is answered. They are gone afterwards.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.postgres import PostgresServer, installed, postgres_server

WITHOUT = "PostgreSQL is not installed, so nothing is measured on it; `.ci/debian-tools` fetches it"


@contextmanager
def sqlite_url() -> Iterator[str]:
    """URL of a file that is not there yet."""
    with tempfile.TemporaryDirectory(prefix="fl-bench-") as folder:
        yield f"sqlite:///{folder}/telemetry.db"


@contextmanager
def postgres() -> Iterator[PostgresServer | None]:
    """A server with its own settings; None, and a word on it, where there is none (fails in CI)."""
    if installed() is None:
        print(WITHOUT)
        if os.environ.get("CI") == "true":
            sys.exit(1)
        yield None
    else:
        with postgres_server(settings=()) as server:
            yield server


@contextmanager
def urls() -> Iterator[dict[str, str]]:
    """Kind of database → URL of an empty one; SQLite first, and PostgreSQL where there is one."""
    with sqlite_url() as url, postgres() as server:
        found = {"SQLite": url}
        if server is not None:
            found["PostgreSQL"] = server.url(server.create_database())
        yield found
