"""Bars, sparklines, clocks, and strangers' text that cannot do anything to a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

BLOCKS: Final = "▁▂▃▄▅▆▇█"
UNKNOWN: Final = "·"
"""Stands in a sparkline for what is not known: no amount at all, and not 0."""
INSTEAD: Final = "\ufffd"
_VARIATION_SELECTORS: Final = range(0xFE00, 0xFE10)
_MOST_MARKS: Final = 2


def inert(text: str) -> str:
    """Text of anybody, in one line: what moves the cursor, colours, reorders or hides is made visible.

    Letters of every script stay. More than two marks on one of them do not: they would pile up over
    other lines.
    """
    return visible(" ".join(text.split()))


def visible(text: str) -> str:
    """As `inert`, with the lines that it has."""
    text = text.expandtabs(4)
    if text.isascii() and text.replace("\n", " ").isprintable():
        return text
    kept: list[str] = []
    marks = 0
    for sign in unicodedata.normalize("NFC", text):
        category = unicodedata.category(sign)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > _MOST_MARKS or ord(sign) in _VARIATION_SELECTORS:
            continue
        hidden = sign != "\n" and (category[0] == "C" or category in ("Zl", "Zp"))
        kept.append(INSTEAD if hidden else sign)
    return "".join(kept)


def fitted(text: str, cells: int) -> str:
    """At most so many cells wide, with an ellipsis where something is left out."""
    if cell_len(text) <= cells:
        return text
    return "" if cells < 1 else set_cell_size(text, cells - 1).rstrip() + "…"


def padded(text: str, cells: int) -> str:
    """`fitted`, and so many cells wide."""
    return set_cell_size(fitted(text, cells), cells)


def clock(seconds: float) -> str:
    """``0:07``, ``12:34``, ``1:02:03`` or ``2 d 03:04``: whole seconds, rounded down."""
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24:02}:{minutes % 60:02}"
    if hours:
        return f"{hours}:{minutes % 60:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}"


def bar(share: float | None, cells: int, style: str) -> Text:
    """How much of a whole is done; nothing of it where that is unknown."""
    halves = 0 if share is None else round(min(1.0, max(0.0, share)) * cells * 2)
    full, half = divmod(halves, 2)
    line = Text("━" * full + "╸" * half, style)
    return line.append("─" * (cells - full - half), "dim")


def sparkline(values: Sequence[float | None], cells: int, *, from_zero: bool) -> str:
    """The last so many values as blocks; from 0, or from the least of them, to the greatest."""
    shown = values[-cells:] if cells > 0 else ()
    known = [value for value in shown if value is not None]
    if not known:
        return UNKNOWN * len(shown)
    low, high = 0.0 if from_zero else min(known), max(known)
    return "".join(UNKNOWN if v is None else _block(v, low, high) for v in shown)


def _block(value: float, low: float, high: float) -> str:
    # Halved, because the difference of two finite numbers may be none.
    span = high / 2 - low / 2
    if span <= 0:
        return BLOCKS[0] if value == 0 else BLOCKS[len(BLOCKS) // 2]
    place = (value / 2 - low / 2) / span
    return BLOCKS[max(0, min(len(BLOCKS) - 1, int(place * len(BLOCKS))))]
