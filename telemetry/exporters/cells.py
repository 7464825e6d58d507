"""How values look in a CSV cell: one spelling for every CSV format.

``None`` (unknown) and numbers go to `csv.writer` as they are: it writes an empty cell and the
shortest form that reads back to the same number. Lines end with CR LF (RFC 4180).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from typing import Final, TextIO

FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet read a text cell as a formula (OWASP, CSV injection)."""

Cell = str | int | float | None


def neutral(text: str | None) -> str | None:
    """A text cell that no spreadsheet runs as a formula."""
    return "'" + text if text is not None and text.startswith(FORMULA_STARTS) else text


def flag(value: bool | None) -> int | None:
    """A yes or no as 1 or 0."""
    return None if value is None else int(value)


def write_table(out: TextIO, header: Iterable[str], rows: Iterable[Iterable[Cell]]) -> None:
    """Write header and rows as RFC 4180."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
