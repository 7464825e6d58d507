"""``fedserver run`` on a terminal, with real clients: what somebody sees who watches it."""

from __future__ import annotations

import logging
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.text import Text

from fedserver.logs import set_up_logging
from fedserver.terminal.display import LiveDisplay
from fedserver.terminal.view import Start, View
from telemetry.store import open_store
from tests.fedserver.clients import ROOT, ClientThread, Script
from tests.fedserver.servers import nested, settings, train
from tests.terminal import Terminal

BUSY = Script(fit="hang", hang_s=1.5, metrics={"emissions": 1e-7})
QUICK = Script(metrics={"emissions": 2e-7})
BAD = Script(fit="nan", metrics={"emissions": 3e-7})


def serve(
    terminal: Terminal,
    folder: Path,
    *arguments: str,
    environ: dict[str, str] | None = None,
    **overrides: Any,
) -> None:
    """A server in the terminal, for three clients."""
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump(nested(settings(folder, 3, **overrides))))
    command = [sys.executable, "-m", "fedserver", "run", "-c", str(path), *arguments]
    terminal.start(command, cwd=ROOT, environ=environ)


def address(terminal: Terminal) -> str:
    """Where its clients connect to, as it is said to whoever sits before it."""
    found = re.search(r"(?m)^share +(\S+)", terminal.wait_for(r"(?m)^share +\S+:\d+"))
    assert found is not None
    return found.group(1)


def test_a_training_from_the_first_client_to_the_closing_line(tmp_path: Path) -> None:
    """Waiting, training, who failed and why, the figures, and in the end the table and the sum."""
    with Terminal(80, 30) as terminal, ExitStack() as clients:
        serve(terminal, tmp_path, rounds=2, emissions__budget_kg=1.0)
        share = address(terminal)
        terminal.wait_for("waiting +0 of 3 connected")
        clients.enter_context(ClientThread(share, BUSY))
        clients.enter_context(ClientThread(share, BUSY))
        waiting = terminal.wait_for("waiting +2 of 3 connected")
        assert re.search(r"○ connected +127\.0\.0\.1 #1\n +○ connected +127\.0\.0\.1 #2", waiting)
        clients.enter_context(ClientThread(share, BAD))
        first = terminal.wait_for(r"round +1 of 2[\s\S]*3 connected · 2 training · 1 done")
        assert re.search(r"training +1 of 3", first)
        assert re.search(r"● training +0:0\d  127\.0\.0\.1 #1", first)
        second = terminal.wait_for(r"round +2 of 2[\s\S]*● training[\s\S]*accuracy +0\.5 ")
        assert re.search(r"about 0:0\d left\ntraining", second)
        assert re.search(r"training +\d of 3 .* of about 0:0[1-9]", second)
        assert re.search(r"accuracy +0\.5 +\S+ +best 0\.5, round 1", second)
        assert re.search(r"CO2eq +[\d.]+ g so far", second)
        assert re.search(r"coverage +2 of 3 clients reported in round 1", second)
        assert re.search(r"budget +1000\.00 g +\S+ +0 % used", second)
        assert terminal.process is not None
        assert terminal.process.wait(30) == 0
        end = terminal.wait_for(r"run\.json")
    assert "── digits" not in end
    assert re.search(r"(?m)^  round  status +s  accuracy", end)
    assert re.search(r"(?m)^      2  partial .* 2/3$", end.replace("2/3         2", "2/3"))
    assert re.search(r"run \S+ completed: total [\d.]+ g = server [\d.]+ g", end.replace("\n", ""))
    assert terminal.scrolled().count("layer '0' holds NaN or infinity") == 2
    store = open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")
    [run] = store.runs()
    assert run.status == "completed"
    store.close()


def test_ctrl_c_ends_it_at_once_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    """Within two seconds, as without a display: exit code, closing line, cursor, nothing half drawn."""
    with Terminal(80, 24) as terminal, ExitStack() as clients:
        serve(terminal, tmp_path, rounds=50)
        share = address(terminal)
        for _ in range(3):
            clients.enter_context(ClientThread(share, BUSY))
        terminal.wait_for("3 training")
        assert terminal.process is not None
        terminal.process.send_signal(signal.SIGINT)
        begin = time.monotonic()
        code = terminal.process.wait(30)
        took = time.monotonic() - begin
        text = terminal.wait_for("wrote")
        assert code == 128 + signal.SIGINT
        assert took < 2.0
        assert "clients    " not in text
        assert not terminal.cursor_hidden


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [(("--plain",), {}), ((), {"CI": "true"}), ((), {"TERM": "dumb"})],
)
def test_plain_lines_where_they_are_wanted(
    tmp_path: Path, arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    """On a terminal, too: nothing but the lines, and no escape sequence among them."""
    with Terminal(400, 24) as terminal:
        serve(terminal, tmp_path, *arguments, environ=environ, clients__wait_timeout_s=0.2)
        assert terminal.process is not None
        assert terminal.process.wait(30) == 1
        terminal.wait_for("failed: emissions|wrote")
        assert b"\x1b" not in terminal.written
        lines = terminal.scrolled().splitlines()
        assert all(re.match(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ", line) for line in lines), lines


def test_a_wrong_configuration_is_told_as_ever(tmp_path: Path) -> None:
    """One message; the display, which has begun by then, is gone."""
    with Terminal(400, 24) as terminal:
        serve(terminal, tmp_path, emissions__country="XYZ")
        assert terminal.process is not None
        assert terminal.process.wait(30) == 2
        text = terminal.wait_for("error: ")
        assert "XYZ" in text
        assert "starting" not in text
        assert not terminal.cursor_hidden


@pytest.fixture
def terminal_log() -> Iterator[Terminal]:
    """A terminal to log to, and the log as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with Terminal() as terminal:
        yield terminal
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_model_is_the_same_with_and_without_it(tmp_path: Path, terminal_log: Terminal) -> None:
    """Bit for bit, with a display that falls over in the middle as well; and so are the records."""

    def falls_over(view: View | Start, width: int, height: int) -> list[Text]:
        if isinstance(view, View) and view.round:
            raise RuntimeError("in the middle of it")
        return [Text("so far")]

    scripts = [QUICK, Script(add=0.3, metrics={"emissions": 1e-7}), BAD]
    stream = terminal_log.stream()
    without = train(tmp_path / "without", scripts, rounds=4)
    with_one = train(
        tmp_path / "with", scripts, rounds=4, display=LiveDisplay(set_up_logging(stream))
    )
    broken = train(
        tmp_path / "broken",
        scripts,
        rounds=4,
        display=LiveDisplay(set_up_logging(stream), draw=falls_over),
    )
    assert "the live display is off: RuntimeError" in terminal_log.scrolled()
    assert without.model() == with_one.model() == broken.model()
    for training in (with_one, broken):
        assert training.outcome.status == "completed"
        assert [(row.round, row.status, row.reported, row.failed) for row in training.rounds] == [
            (row.round, row.status, row.reported, row.failed) for row in without.rounds
        ]
        assert training.run.totals.rounds == without.run.totals.rounds
