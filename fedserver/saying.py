"""What commands print: strangers' text in it, such as the name of a run, cannot do anything."""

from __future__ import annotations

import sys
from typing import Any, TextIO

import typer
from rich.console import Console
from rich.text import Text

from fedserver.terminal.signs import INSTEAD, visible


def say(line: str = "", *, err: bool = False) -> None:
    """Print one line, whatever is in it."""
    typer.echo(visible(line).replace("\n", INSTEAD), err=err)


class InertConsole(Console):
    """For tables: text is text, neither markup nor an escape sequence."""

    def __init__(self) -> None:
        # A pipe has no width: do not break lines there.
        width = None if sys.stdout.isatty() else 200
        super().__init__(width=width, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich's, of what can be seen."""
        return super().render_str(visible(text), **options)


class InertStream:
    """Stands before a terminal that somebody has a file printed on. Knows `write` only."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        """Print what can be seen of it."""
        return self._out.write(visible(text.replace("\r\n", "\n")))
