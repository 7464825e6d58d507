"""A real PostgreSQL server for tests: started in a directory of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import psycopg

from tests.tools import missing

_TOOLS: Final = Path(__file__).parent.parent / ".tools" / "usr" / "lib"
_UNPACKED: Final = _TOOLS / "postgresql"
_DEBIANS: Final = Path("/usr/lib/postgresql")
_UNPRIVILEGED: Final = "nobody"
"""PostgreSQL refuses to run as root; tests in containers often do."""
_FAST: Final = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
DURABLE: Final = ("fsync=off", "full_page_writes=off")
"""What is acknowledged outlives a crash of the server, though not one of the machine."""
_numbers = count(1)


@dataclass
class PostgresServer:
    """A server that listens on a socket in its own directory, and nowhere else."""

    programs: Path
    folder: Path
    settings: tuple[str, ...] = _FAST

    @staticmethod
    def installed() -> Path:
        """Where the newest installed server's programs are; skips (fails in CI) without one."""
        return _programs()

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """URL of a database, for `open_store` and for psycopg."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = " ".join(f"-c {setting}" for setting in self.settings)
        listen = f"-k {self.folder} -c listen_addresses= -c log_timezone=UTC"
        log = self.folder / "log"
        self._pg_ctl("start", "-w", "-t", "30", "-l", str(log), "-o", f"{listen} {options}")

    def stop(self, mode: str = "fast") -> None:
        """Stop: ``fast`` ends sessions, ``immediate`` is a crash."""
        self._pg_ctl("stop", "-w", "-t", "30", "-m", mode)

    def create_database(self, template: str = "template1") -> str:
        """A new database; its name."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def initialise(self) -> None:
        """Make the cluster's files."""
        self._run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8",
            "--locale=C", "--no-sync", "--no-instructions",
        )  # fmt: skip

    @property
    def data(self) -> Path:
        """The cluster's files."""
        return self.folder / "data"

    def _libraries(self) -> dict[str, str]:
        """Where an unpacked server finds those libraries that were unpacked with it."""
        if not self.programs.is_relative_to(_UNPACKED):
            return {}
        folders = sorted({str(file.parent) for file in _TOOLS.glob("*/lib*.so.*")})
        return {"LD_LIBRARY_PATH": ":".join(folders)}

    def _pg_ctl(self, action: str, *options: str) -> None:
        self._run("pg_ctl", action, "-D", str(self.data), "-s", *options)

    def _run(self, program: str, *arguments: str) -> None:
        # A server that is started inherits these: it must not hold the test's own pipes open.
        with (self.folder / f"{program}.out").open("wb") as out:
            done = subprocess.run(
                [str(self.programs / program), *arguments],
                user=_UNPRIVILEGED if os.geteuid() == 0 else None,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", **self._libraries()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=90,
            )
        if done.returncode:
            said = (self.folder / f"{program}.out").read_text(errors="replace")
            log = self.folder / "log"
            more = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}{more}")


@contextmanager
def postgres_server(settings: tuple[str, ...] = _FAST) -> Iterator[PostgresServer]:
    """A running server of its own; skips (fails in CI) where PostgreSQL is not installed."""
    # A short path: that of a socket may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="fl-pg-"))
    try:
        unprivileged_postgres(folder)
        server = PostgresServer(_programs(), folder, settings)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            with suppress(RuntimeError):  # a test may have stopped it
                server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def unprivileged_postgres(path: Path) -> None:
    """Give a file or folder to the user that runs PostgreSQL."""
    if os.geteuid() == 0:
        shutil.chown(path, _UNPRIVILEGED)


def wait_until_gone(server: PostgresServer, timeout_s: float = 10.0) -> None:
    """Wait until nothing answers on the server's socket."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            psycopg.connect(server.url(), connect_timeout=1).close()
        except psycopg.OperationalError:
            return
        time.sleep(0.05)
    raise AssertionError("the server still answers")


def installed() -> Path | None:
    """Where PostgreSQL's own programs are; None where it is not installed."""
    for folder in (_DEBIANS, _UNPACKED):
        for version in sorted(folder.glob("*/bin"), reverse=True):
            if (version / "initdb").exists():
                return version
    return None


def _programs() -> Path:
    return installed() or missing("PostgreSQL is not installed; `.ci/debian-tools` fetches it")
