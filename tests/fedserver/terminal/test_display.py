"""The display on a terminal: who owns it, what stays on it, and what becomes of the log."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.text import Text

from fedserver.logs import set_up_logging
from fedserver.terminal.choosing import chosen
from fedserver.terminal.display import REFRESH_S, LiveDisplay
from fedserver.terminal.drawing import lines
from fedserver.terminal.view import Start, View
from fedserver_hooks.events import Began, Seen
from tests.fedserver.terminal.test_watching import T0, facts
from tests.terminal import Terminal

log = logging.getLogger("fedserver")


@pytest.fixture(autouse=True)
def root_log() -> Iterator[None]:
    """The handlers of before, whatever a test does to them."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@contextmanager
def shown(
    terminal: Terminal, draw: Any = lines, **options: Any
) -> Iterator[tuple[LiveDisplay, logging.StreamHandler[Any]]]:
    """A display of a server that is ready for clients."""
    plain = set_up_logging(terminal.stream())
    display = LiveDisplay(plain, draw=draw, **options)
    display.watch(Began((0, 1), T0))
    display.watch(Seen(1))
    display.step("the ports", 3, 3)
    display.training(facts)
    try:
        yield display, plain
    finally:
        display.close()


def test_log_lines_scroll_above_it() -> None:
    """It stays where it is, at the foot, whole; nothing of it is left in between."""
    with Terminal() as terminal, shown(terminal, clock=lambda: T0 + 5):
        terminal.wait_for("waiting +1 of 3 connected")
        for number in range(40):
            log.info("line %d", number)
        terminal.wait_for(r"line 39\n── digits[\s\S]*power sensor on the server$")
        text = terminal.scrolled()
        assert re.findall(r"INFO +line (\d+)", text) == [str(number) for number in range(40)]
        assert text.count("── digits") == 1
        assert text.endswith("modelled; no power sensor on the server")


def test_a_warning_stays_visible() -> None:
    """Counted, and the last one shown, after it has scrolled away."""
    with Terminal() as terminal, shown(terminal):
        log.warning("the store is slow")
        log.warning("telemetry (store): the database is locked")
        for number in range(40):
            log.info("line %d", number)
        stays = r"warnings   2  telemetry \(store\): the database is locked"
        terminal.wait_for(rf"line 39\n── digits[\s\S]*{stays}")


def test_it_is_gone_when_it_is_closed_and_the_log_goes_on() -> None:
    """Every line is there once, in order: before, while and after."""
    with Terminal() as terminal:
        with shown(terminal) as (display, plain):
            log.info("while it is shown")
            display.say("said between")
            log.info("and just before its end")
            display.close()
            log.info("after it")
            display.say("said after it")
            assert logging.getLogger().handlers == [plain]
        terminal.wait_for("said after it")
        wanted = ["while it is shown", "said between", "and just", "after it", "said after it"]
        said = [line for line in terminal.scrolled().splitlines() if line]
        assert len(said) == len(wanted), said
        assert all(want in line for want, line in zip(wanted, said, strict=True)), said


def test_lines_are_those_of_the_plain_log() -> None:
    """The same text, colours aside; a long one is not broken by us, and can be copied whole."""
    with Terminal(columns=40) as terminal:
        with shown(terminal):
            log.info("%s", "long " * 30)
            terminal.wait_for("long")
        text = terminal.scrolled().replace("\n", "")
        assert re.search(r"\d\d:\d\d:\d\d INFO    " + ("long " * 30).strip(), text)


def test_names_in_log_lines_are_inert() -> None:
    """A client's name cannot clear the screen through the log either."""
    with Terminal() as terminal:
        with shown(terminal):
            log.info("client %s connected", "\x1b[2J\x9bH[red]evil")
            terminal.wait_for("evil")
        assert "client \ufffd[2J\ufffdH[red]evil connected" in terminal.scrolled()


def test_what_others_print_is_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that writes to stderr does not write into it."""
    with Terminal() as terminal:
        monkeypatch.setattr(sys, "stderr", terminal.stream())
        mine = sys.stderr
        with shown(terminal):
            terminal.wait_for("waiting")
            print("a library says hello", file=sys.stderr)  # noqa: T201 - as it would
            terminal.wait_for(r"a library says hello\n── digits")
        assert sys.stderr is mine


@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_display_that_raises_is_off_and_says_so_once(when: str) -> None:
    """One line in the log, then plain lines; nobody is told twice, and nothing is lost."""
    began = threading.Event()

    def draws(view: View | Start, width: int, height: int) -> list[Text]:
        if when == "at once" or began.is_set():
            raise ZeroDivisionError("out of paint")
        return lines(view, width, height)

    with Terminal() as terminal:
        with shown(terminal, draws) as (display, plain):
            log.info("before")
            if when == "later":
                terminal.wait_for("waiting")
            began.set()
            terminal.wait_for("display is off")
            log.info("after")
            display.watch(Seen(2))
            display.say("said")
            assert logging.getLogger().handlers == [plain]
        terminal.wait_for("said")
        text = terminal.scrolled()
        assert "\n".join(re.findall(r"(?:INFO|WARNING) +(.*)", text)).splitlines()[0] == "before"
        assert text.count("the live display is off: ZeroDivisionError: out of paint") == 1
        assert text.count("after") == 1
        assert "── digits" not in text


def test_a_view_that_cannot_be_made_turns_it_off() -> None:
    """Such as by a store that cannot be read: the server goes on."""

    def raises() -> Any:
        raise OSError("no such table")

    with Terminal() as terminal:
        plain = set_up_logging(terminal.stream())
        display = LiveDisplay(plain)
        display.step("the ports", 3, 3)
        display.training(raises)
        terminal.wait_for("the live display is off: OSError: no such table")
        display.close()


def test_it_is_drawn_at_most_four_times_a_second() -> None:
    """However much happens; and not at all while nothing does."""
    drawn = []

    def draws(view: View | Start, width: int, height: int) -> list[Text]:
        drawn.append(time.monotonic())
        return lines(view, width, height)

    with Terminal() as terminal, shown(terminal, draws) as (display, _):
        terminal.wait_for("waiting")
        begin, before = time.monotonic(), len(drawn)
        while time.monotonic() < begin + 1.0:
            display.watch(Seen(len(drawn) + 7))
            log.info("news")
            time.sleep(0.001)
        took = time.monotonic() - begin
        assert len(drawn) - before <= took * 4 + 1


def test_an_unchanged_view_is_not_written_again() -> None:
    """A terminal that shows what there is to show is left alone."""
    with Terminal() as terminal:
        plain = set_up_logging(terminal.stream())
        display = LiveDisplay(plain, clock=lambda: T0)
        display.step("the power meter", 2, 3)
        terminal.wait_for("starting")
        written = len(terminal.written)
        time.sleep(5 * REFRESH_S)
        assert len(terminal.written) == written
        display.close()


def test_a_terminal_that_takes_nothing_holds_up_nobody() -> None:
    """Ctrl-S: whoever logs or tells goes on at once, and the end does not wait for long."""
    with Terminal(deaf=True) as terminal:
        with shown(terminal) as (display, _):
            begin = time.monotonic()
            for number in range(3000):
                log.info("line %d %s", number, "x" * 60)
                display.watch(Seen(number))
            assert time.monotonic() - begin < 5
            assert display._thread is not None
            assert display._thread.is_alive()
            terminal.listen()
            terminal.wait_for("line 2999")
        found = re.findall(r"INFO +line (\d+)", terminal.scrolled())
        assert found == [str(number) for number in range(3000)]


def test_what_nobody_reads_for_long_ends_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of the server is not for a terminal that somebody has stopped."""
    monkeypatch.setattr("fedserver.terminal.display.MOST_NEWS", 100)
    with Terminal() as terminal:
        plain = set_up_logging(terminal.stream())
        display = LiveDisplay(plain)
        for number in range(500):
            display.watch(Seen(number))
        assert len(display._news) == 101
        display.step("the ports", 3, 3)
        terminal.wait_for("the live display is off: RuntimeError: the terminal")
        display.close()


def test_it_follows_the_size_of_the_terminal() -> None:
    """Narrower, wider, lower: the next time that it is drawn it fits."""
    with Terminal(80, 24) as terminal, shown(terminal):
        terminal.wait_for("waiting")
        for columns, rows in ((60, 24), (100, 30), (80, 10)):
            terminal.resize(columns, rows)
            terminal.wait_for(r"(?m)^── digits.*─{3}$[\s\S]*CO2eq")
            [title] = [line for line in terminal.lines()[-12:] if line.startswith("── digits")][-1:]
            deadline = time.monotonic() + 10
            while len(title) != columns and time.monotonic() < deadline:
                time.sleep(0.05)
                found = [line for line in terminal.lines() if line.startswith("── digits")]
                title = found[-1] if found else ""
            assert len(title) == columns


def test_nothing_of_it_is_left_where_a_terminal_wraps_its_lines_anew() -> None:
    """A narrower terminal has broken the lines of the display in two: both halves go."""
    with Terminal(80, 40) as terminal, shown(terminal, clock=lambda: T0 + 5):
        for number in range(3):
            log.info("line %d", number)
        terminal.wait_for(r"line 2\n── digits[\s\S]*power sensor on the server$")
        terminal.resize(50, 40, wraps=True)
        text = terminal.wait_for(r"round +0 of 5 +─{6}  0:05\n[\s\S]*power sensor on the server$")
        assert text.count("── digits") == 1
        assert re.findall(r"line (\d)", text) == ["0", "1", "2"]
        assert "─\n─" not in text


# --- whether there is one ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "environ", "live"),
    [
        (None, {"TERM": "xterm"}, True),
        (None, {"TERM": "xterm", "NO_COLOR": "1"}, True),
        (None, {"TERM": "xterm", "CI": "true"}, False),
        (None, {"TERM": "xterm", "CI": "false"}, True),
        (True, {"TERM": "xterm", "CI": "true"}, True),
        (False, {"TERM": "xterm"}, False),
        (None, {"TERM": "dumb"}, False),
        (True, {"TERM": "dumb"}, False),
        (None, {}, False),
    ],
)
def test_a_display_is_for_terminals_that_somebody_looks_at(
    asked: bool | None, environ: dict[str, str], live: bool
) -> None:
    """Asked for or not; where it cannot be, plain lines."""
    with Terminal() as terminal:
        plain = set_up_logging(terminal.stream())
        assert (chosen(plain, asked, environ) is not None) == live


def test_a_display_that_cannot_be_is_told_of(tmp_path: Any) -> None:
    """A file is no terminal; neither is one without UTF-8."""
    with (tmp_path / "log").open("w+") as file:
        plain = set_up_logging(file)
        assert chosen(plain, None, {"TERM": "xterm"}) is None
        assert chosen(plain, True, {"TERM": "xterm"}) is None
        file.seek(0)
        said = file.read()
        assert "plain lines instead of a live display: the log does not go to a terminal" in said
        assert said.count("\n") == 1
    with Terminal() as terminal:
        stream = terminal.stream()
        stream.reconfigure(encoding="latin-1")  # type: ignore[attr-defined]
        assert chosen(set_up_logging(stream), None, {"TERM": "xterm"}) is None


def test_without_colour_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR: no colour is set, and nothing is lost by it."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with Terminal() as terminal, shown(terminal):
        log.warning("look")
        terminal.wait_for("warnings +1  look")
        codes = {
            code
            for found in re.findall(rb"\x1b\[([\d;]*)m", terminal.written)
            for code in found.split(b";")
        }
        assert codes <= {b"", b"0", b"1", b"2"}
