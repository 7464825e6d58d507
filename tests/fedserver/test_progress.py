"""Bars for commands that take their time: on a terminal, and nowhere else."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import pytest

from fedserver.cli import main
from fedserver.progress import progress
from telemetry.domain import utc_now
from telemetry.store import open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.fedserver.clients import ROOT
from tests.service_double import ServiceDouble
from tests.terminal import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal on which every bar appears at once."""
    monkeypatch.setattr("fedserver.progress.PATIENCE_S", 0.0)
    monkeypatch.setenv("TERM", "xterm-256color")
    with Terminal(100, 24) as found:
        yield found


@pytest.fixture
def url(tmp_path: Path) -> str:
    """URL of a store with a run of twenty rounds that ended long ago."""
    found = f"sqlite:///{tmp_path}/telemetry.db"
    with closing(open_store(found)) as store:
        store.start_run(make_run(), OWNER, START)
        for number in range(20):
            store.record_round(make_round(number, clients={"1": 0.5} if number else None))
        store.finish_run(RUN_ID, "completed", utc_now() - timedelta(days=10))
        store.release(RUN_ID, OWNER)
    return found


def run(terminal: Terminal, *arguments: str) -> None:
    """A command, in this process, with its stderr there; it must succeed."""
    with redirect_stderr(terminal.stream()), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code, arguments


def test_a_bar_shows_how_far_it_is_and_is_gone_in_the_end(terminal: Terminal) -> None:
    """What, how much of how many, and nothing of it afterwards."""
    with redirect_stderr(terminal.stream()), progress("verify", 40, "runs") as tell:
        tell(10)
        terminal.wait_for(r"verify ━+.* 10/40 runs")
        tell(5, 8, "upgrade")
        terminal.wait_for(r"upgrade ━+.* 5/8 runs")
    terminal.wait_for("^$")
    assert not terminal.cursor_hidden


def test_quick_work_shows_no_bar(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would only flicker."""
    monkeypatch.setattr("fedserver.progress.PATIENCE_S", 60.0)
    with redirect_stderr(terminal.stream()), progress("verify", 40, "runs") as tell:
        for number in range(41):
            tell(number)
    assert terminal.written == b""


def test_a_bar_is_gone_when_the_work_fails(terminal: Terminal) -> None:
    """The message stands alone."""

    def fails() -> None:
        with progress("verify", 40, "runs") as tell:
            tell(3)
            raise ZeroDivisionError

    with redirect_stderr(terminal.stream()), pytest.raises(ZeroDivisionError):
        fails()
    terminal.wait_written("verify")
    terminal.wait_for("^$")
    assert terminal.text() == ""


@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        (("runs", "export", "latest", "-o", "{folder}/out.csv"), r"export ━+.* \d+/21 lines"),
        (("runs", "export", "latest", "--format", "json", "-o", "{folder}/x"), r"export .* lines"),
        (
            ("runs", "recost", "latest", "--intensity", "9", "--everywhere"),
            r"re-cost .* \d+/20 rou",
        ),
        (
            ("runs", "report", "latest", "-o", "{folder}/r.html"),
            r"report .* \d+/\? rows of clients",
        ),
        (("runs", "verify", "--all"), r"verify .* 1/1 runs"),
        (("telemetry", "prune", "--older-than", "5d", "--keep-totals"), r"prune .* 1/1 runs"),
    ],
)
def test_commands_have_bars(
    arguments: tuple[str, ...], bar: str, terminal: Terminal, url: str, tmp_path: Path
) -> None:
    """Of what they are at work on, with the total where that is known."""
    run(terminal, *(part.format(folder=tmp_path) for part in arguments), "--store", url)
    terminal.wait_written(bar)


def test_a_migration_has_a_bar(terminal: Terminal, tmp_path: Path) -> None:
    """The copy's pages, then the revisions."""
    path = tmp_path / "old.db"
    schema = ROOT / "tests" / "telemetry" / "schemas" / "0002.sql"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema.read_text())
    run(terminal, "telemetry", "migrate", "--store", f"sqlite:///{path}")
    terminal.wait_written(r"copy pages[\s\S]*upgrade .* \d/\d revisions")


def test_a_delivery_has_a_bar(terminal: Terminal, url: str, tmp_path: Path) -> None:
    """Rounds that the service has, of those that waited."""
    with ServiceDouble() as service:
        run(terminal, "telemetry", "flush", "--store", url, "--service-url", service.url)
    terminal.wait_written(r"deliver .* \d+/20 rounds")


def test_an_export_on_the_screen_has_no_bar_in_it(terminal: Terminal, url: str) -> None:
    """The table is what somebody wants to see."""
    with redirect_stdout(terminal.stream()):
        run(terminal, "runs", "export", "latest", "--store", url)
    terminal.wait_for("2026-01-02")
    assert "export" not in terminal.plain()
    assert b"\x1b" not in terminal.written


@pytest.mark.parametrize("piped", ["stdout", "stderr", "both"])
def test_a_pipe_gets_no_bar(piped: str, url: str) -> None:
    """Whatever the other stream is: the same bytes as ever, without an escape sequence."""
    program = (
        "import sys, fedserver.progress as p; p.PATIENCE_S = 0.0\n"
        "from fedserver.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, "runs", "export", "latest", "--store", url]
    with Terminal(100, 24) as terminal:
        there = terminal.stream()
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "FORCE_COLOR": "1"},  # which rich obeys in a pipe
            stdout=there if piped == "stderr" else subprocess.PIPE,
            stderr=there if piped == "stdout" else subprocess.PIPE,
            check=True,
        )
        if piped == "stdout":
            terminal.wait_written(r"export .* \d+/21 lines")
        else:
            assert done.stderr.startswith(b"latest is")
            assert b"\x1b" not in done.stderr
        if piped == "stderr":
            terminal.wait_for("2026-01-02")
            assert b"\x1b" not in terminal.written
        else:
            assert done.stdout.count(b"\r\n") == 21
            assert b"\x1b" not in done.stdout
