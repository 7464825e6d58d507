"""Keeps a view of the training at the foot of a terminal, and the log above it.

One thread of its own owns the terminal: the training only appends to lists. Whatever goes wrong in
here ends the display and nothing else; the log says so once and goes on in plain lines.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from fedserver.terminal.drawing import lines
from fedserver.terminal.facts import Facts
from fedserver.terminal.log_tap import LogLine, LogTap
from fedserver.terminal.signs import visible
from fedserver.terminal.starting import Ready, ServerNews, ServerWatch, Starting
from fedserver.terminal.view import Start, View
from fedserver.terminal.watching import Warned
from fedserver_hooks.clock import Clock, SystemClock
from fedserver_hooks.events import Event
from telemetry.domain import RoundRecord

logger = logging.getLogger(__name__)

REFRESH_S: Final = 0.25
CLOSE_S: Final = 0.5
"""How long the end waits for a terminal that takes nothing."""
MOST_NEWS: Final = 100_000
"""News that a terminal which takes nothing may leave unread; the display ends after that."""

News = ServerNews | LogLine
_LEVELS: Final = ((logging.ERROR, "red"), (logging.WARNING, "yellow"))


class _Frame:
    """What stands below the log now: rich looks at it whenever something is printed above."""

    def __init__(self) -> None:
        self.lines: list[Text] = []

    def __rich_console__(self, console: Console, _: ConsoleOptions) -> RenderResult:
        for line in self.lines:  # as they are: they fit, and to wrap them anew takes the longest
            yield from line.render(console, end="\n")


class LiveDisplay:
    """The display of one training, on the terminal that ``plain`` logs to.

    `watch` is for the training's recorder. Nothing in here raises. The display begins with the first
    `step` of the server's start, shows the training once it has its facts, and ends with `close`.
    """

    def __init__(
        self,
        plain: logging.StreamHandler[TextIO],
        *,
        console: Console | None = None,
        clock: Clock | None = None,
        draw: Callable[[View | Start, int, int], list[Text]] = lines,
    ) -> None:
        self.console = console or Console(file=plain.stream, force_terminal=True, highlight=False)
        self._clock = clock or SystemClock()
        self._draw = draw
        self._news: deque[News] = deque()
        self._unsaid: list[LogLine] = []
        self._tap = LogTap(plain, self._news.append)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._on = True
        self._overrun = False
        self._watch = ServerWatch(self._clock())
        self._shown = _Frame()
        self._size = (0, 0)

    # --- for the training ----------------------------------------------------------------------

    def watch(self, news: Event | RoundRecord) -> None:
        """Something happened. Appends to a list."""
        if self._on and not self._overrun:
            self._news.append(news)
            self._overrun = len(self._news) > MOST_NEWS

    def say(self, text: str) -> None:
        """A line above the display, in the order of the log's lines."""
        self._tap.say(text)

    def step(self, what: str, number: int, of: int) -> None:
        """The server is starting, and does this now."""
        if not self._on:
            return
        self._news.append(Starting(what, number, of))
        if self._thread is None:
            thread = threading.Thread(target=self._keep_shown, name="terminal", daemon=True)
            try:
                self._tap.take_over()
                thread.start()
            except RuntimeError as error:  # the system gives no more threads
                self._end(error)
            else:
                self._thread = thread

    def training(self, facts: Callable[[], Facts]) -> None:
        """The server has started; ``facts`` is called in another thread, and may raise what it likes."""
        if self._on:
            self._news.append(Ready(facts))

    def close(self) -> None:
        """Take the display off the terminal; what is logged from now on is written plainly."""
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(CLOSE_S)
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        """The log is written plainly again, whatever else there is."""
        was_on, self._on = self._on, False
        self._tap.give_back(self._left)
        if error is not None and was_on:
            told = f"{type(error).__name__}: {error}".rstrip(": ")
            logger.warning(
                "the live display is off: %s; the training goes on, in plain lines", told
            )

    def _left(self) -> list[LogLine]:
        """What nobody has printed."""
        left = [*self._unsaid, *self._news]
        self._unsaid.clear()
        self._news.clear()
        return [news for news in left if isinstance(news, LogLine)]

    # --- its thread ----------------------------------------------------------------------------

    def _keep_shown(self) -> None:
        live = Live(
            self._shown,
            console=self.console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )
        problem: Exception | None = None
        try:
            live.start()
            while not self._stop.wait(REFRESH_S):
                self._refresh(live)
            self._refresh(live)
        except Exception as error:  # noqa: BLE001 - the edge between the display and the training
            problem = error
        finally:
            with suppress(Exception):  # a terminal that is gone cannot be tidied up
                live.stop()
            self._end(problem)

    def _refresh(self, live: Live) -> None:
        if self._overrun:
            raise RuntimeError("the terminal took nothing for too long")
        self._take()
        self.console.size = size = self._terminal_size()
        drawn = self._draw(self._watch.view(self._clock()), size.width, size.height)
        if not self._unsaid and drawn == self._shown.lines and size == self._size:
            return
        if size.width < self._size[0]:
            self._unwrap(size.width)
        self._shown.lines, self._size = drawn, (size.width, size.height)
        if self._unsaid:
            self.console.print(*map(_line, self._unsaid), sep="\n", soft_wrap=True)
            self._unsaid.clear()
        else:
            live.refresh()

    def _terminal_size(self) -> ConsoleDimensions:
        """Of the terminal that is written to; rich asks those of stdin and stdout first."""
        try:
            size = os.get_terminal_size(self.console.file.fileno())
        except (OSError, ValueError):
            return self.console.size
        # A serial line, and some containers, have none.
        return ConsoleDimensions(size.columns or 80, size.lines or 24)

    def _take(self) -> None:
        """Follow the news, and keep what of them is to be printed."""
        for _ in range(len(self._news)):
            news = self._news.popleft()
            if isinstance(news, LogLine):
                self._unsaid.append(news)
                if news.level >= logging.WARNING:
                    self._watch.take(Warned(news.message))
            else:
                self._watch.take(news)

    def _unwrap(self, width: int) -> None:
        """Terminals that became narrower have wrapped what stands there: those lines must go, too."""
        extra = sum(max(0, line.cell_len - 1) // width for line in self._shown.lines)
        self.console.control(
            Control(
                ControlType.CARRIAGE_RETURN,
                (ControlType.ERASE_IN_LINE, 2),
                *((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * extra,
            )
        )


def _line(news: LogLine) -> Text:
    """A line of the log: its time and level dim, or coloured where something is amiss."""
    line = Text(visible(news.text))
    style = next((style for level, style in _LEVELS if news.level >= level), None)
    if style is not None:
        line.stylize(style)
    else:
        line.highlight_regex(r"^\d\d:\d\d:\d\d [A-Z]+ +", "dim")
    return line
