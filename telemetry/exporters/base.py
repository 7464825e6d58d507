"""What an export format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TextIO, cast

from telemetry.domain import RunTotals
from telemetry.progress import LineCounter, Tell, nobody
from telemetry.store.base import Store

Notes = list[str]
"""Sentences on what a reader should know, e.g. how many rounds were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One way to write a stored run.

    ``write`` streams closed rounds only, in constant memory, and raises what the store raises
    (`RunNotFound`, `StoreError`). It chooses its own line ends: ``out`` must not translate them
    (open files with ``newline=""``).
    """

    name: str
    media_type: str
    suffix: str
    """Of a file's name, e.g. ``.csv``."""
    write: Callable[[Store, str, TextIO], Notes]
    lines: Callable[[RunTotals], int] | None = None
    """About how many lines there will be; None where that is not known."""

    def write_telling(self, store: Store, run_id: str, out: TextIO, tell: Tell) -> Notes:
        """`write`; ``tell`` hears how many lines there are."""
        if self.lines is not None:
            tell(0, self.lines(store.run(run_id).totals))
        # No more than `write` is asked of a stream.
        return self.write(store, run_id, cast(TextIO, LineCounter(out.write, tell)))

    def save(self, store: Store, run_id: str, path: Path, tell: Tell = nobody) -> Notes:
        """Write to a file, whole or not at all: an older one stays if anything goes wrong."""
        draft = path.with_name(f".{path.name}.{token_hex(4)}")
        try:
            with draft.open("x", encoding="utf-8", newline="") as out:
                notes = self.write_telling(store, run_id, out, tell)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return notes


def a_line_a_round(totals: RunTotals) -> int:
    """Lines of a table with one row a round, the set-up included, and a header."""
    return sum(totals.rounds.values()) + 2


def a_line_a_report(totals: RunTotals) -> int:
    """Lines of a table with one row a report, and a header."""
    return totals.reports_accepted + totals.reports_rejected + totals.reports_late + 1
