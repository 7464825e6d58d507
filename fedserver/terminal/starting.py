"""Follows a server from its start on: step by step until it is ready, then its run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedserver.terminal.facts import Facts
from fedserver.terminal.view import Start, View
from fedserver.terminal.watching import RunNews, RunWatch


@dataclass(frozen=True, slots=True)
class Starting:
    """The server has begun with this step of its start."""

    what: str
    number: int
    of: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Clients may come. ``facts`` may raise what it likes."""

    facts: Callable[[], Facts]


ServerNews = RunNews | Starting | Ready


class ServerWatch:
    """What is known of a server at this moment. For one thread."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._step = Starting("", 1, 1)
        self._kept: list[RunNews] = []
        self._run: RunWatch | None = None

    def take(self, news: ServerNews) -> None:
        """The next thing that happened. A run's news of before it is ready are kept for it."""
        if isinstance(news, Starting):
            self._step = news
        elif isinstance(news, Ready):
            self._run = RunWatch(news.facts())
            for kept in self._kept:
                self._run.take(kept)
        elif self._run is None:
            self._kept.append(news)
        else:
            self._run.take(news)

    def view(self, now: float) -> Start | View:
        """This moment; ``now`` in epoch seconds."""
        if self._run is not None:
            return self._run.view(now)
        step, seconds = self._step, max(0.0, now - self._began)
        return Start(what=step.what, done=step.number - 1, of=step.of, seconds=seconds)
