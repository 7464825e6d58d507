"""How far a long piece of work is: whoever does it tells, whoever likes shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Tell(Protocol):
    """Is told now and then. Must be quick, and must not raise."""

    def __call__(self, done: int, of: int | None = None, what: str | None = None) -> None:
        """``done`` of so many (None: as said before, or unknown); ``what`` is being done, if news."""
        ...


def nobody(done: int, of: int | None = None, what: str | None = None) -> None:
    """Nobody wants to know."""


def counted(items: Iterable[T], tell: Tell) -> Iterator[T]:
    """The same items; each is told of once it has been dealt with."""
    for number, item in enumerate(items, 1):
        yield item
        tell(number)


class LineCounter:
    """Stands between whoever writes text and where it goes, and tells how many lines there are."""

    def __init__(self, write: Callable[[str], int], tell: Tell) -> None:
        self._write = write
        self._tell = tell
        self._lines = 0

    def write(self, text: str) -> int:
        """As a text stream does."""
        written = self._write(text)
        if lines := text.count("\n"):
            self._lines += lines
            self._tell(self._lines)
        return written
