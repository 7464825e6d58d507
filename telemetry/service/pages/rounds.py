"""The rounds of a run as a table, newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from telemetry.service.html import text
from telemetry.service.pages.bound import Bound, Path
from telemetry.service.pages.frame import head, table

PER_PAGE: Final = 50
_FIGURES: Final[tuple[tuple[str, str, str], ...]] = (
    ("Server, g", "server_emissions_kg", "grams"),
    ("Clients, g", "clients_emissions_kg", "grams"),
    ("Total, g", "total_emissions_kg", "grams"),
    ("Cumulative, g", "cumulative_emissions_kg", "grams"),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """One page of rounds, as the interface gives them, newest first."""

    rows: Sequence[Mapping[str, Any]]
    number: int
    """Of the page, from 1 on."""
    all_rows: int
    metrics: Sequence[tuple[str, str]]
    """(name, split) of the columns of training metrics."""

    @property
    def pages(self) -> int:
        """How many there are; one at the least."""
        return max(1, -(-self.all_rows // PER_PAGE))


def rounds_table(part: Slice) -> str:
    """The section with the table, and the way to its other pages."""
    columns = (
        ("Round", ""),
        ("Status", ""),
        ("Seconds", "num"),
        ("Reported", "num"),
        ("Coverage, %", "num"),
        *((name, "num") for name, _, _ in _FIGURES),
    )
    paths: dict[Path, str] = {"duration_s": "seconds"}
    paths |= {path: kind for _, path, kind in _FIGURES}
    paths |= {_metric_path(name, split): "number" for name, split in part.metrics}

    def row(item: Bound) -> str:
        return _row(item, part.metrics)

    body = Bound({"rounds": part.rows}).each("rounds", row, "tbody", paths)
    empty = '<p class="note" id="no-rounds">No round yet.</p>'
    return (
        '<section aria-labelledby="rounds-name"><h2 id="rounds-name">Rounds</h2>'
        f"{'' if part.rows else empty}"
        f"{table('Round by round', head(*columns, metrics=part.metrics), body, 'rounds', 'even')}{_pages(part)}</section>"
    )


def _row(item: Bound, metrics: Sequence[tuple[str, str]]) -> str:
    attempt = (
        f'<small class="attempt" {_attempt(item)}>attempt {item.show("attempt", "count")}</small>'
    )
    status = item.state("status") + item.when("reason", item.show("reason"), "small")
    of = f"{item.show('reported', 'count')} of {item.show('participants', 'count')}"
    known = item.when("closed", of, "span") + item.unless("closed", "–", "span")
    share = item.when("closed", item.show("coverage", "percent"), "span")
    figures = [("duration_s", "seconds")] + [(path, kind) for _, path, kind in _FIGURES]
    seconds, *grams = (item.show(path, kind) for path, kind in figures)
    cells = (
        seconds,
        known,
        share + item.unless("closed", "–", "span"),
        *grams,
        *(item.show(_metric_path(name, split), "number") for name, split in metrics),
    )
    return (
        f'<tr><th scope="row">{item.show("round", "count")}{attempt}</th><td>{status}</td>'
        + "".join(f'<td class="num">{cell}</td>' for cell in cells)
        + "</tr>"
    )


def _attempt(item: Bound) -> str:
    number = item.at("attempt")
    word = "" if number is None else f' data-word="{number}"'
    return f'data-state="attempt"{word}'


def _metric_path(name: str, split: str) -> Path:
    return (f"{split}_metrics", name)


def _pages(part: Slice) -> str:
    newer = _link("Newer", part.number - 1, part.number > 1)
    older = _link("Older", part.number + 1, part.number < part.pages)
    hidden = "" if part.pages > 1 else " hidden"
    words = f"Page {part.number} of {part.pages}"
    return (
        f'<nav class="pages" id="rounds-pages" aria-label="Pages of rounds"{hidden}>{newer}'
        f"<span>{text(words)}</span>{older}</nav>"
    )


def _link(name: str, number: int, there: bool) -> str:
    address = f' href="?page={number}#rounds-name"' if there else ' aria-disabled="true"'
    return f'<a class="button" data-page="{name.lower()}"{address}>{name}</a>'
