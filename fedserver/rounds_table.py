"""A run's rounds as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fedserver.terminal.signs import inert
from fedserver.wording import decimals_for, grams
from telemetry.domain import GRAMS_PER_KG, RoundSummary

_BETWEEN: Final = 2
_LEFT: Final = "status"
_LEAST_FIRST: Final = ("cumulative g", "reported", "server g", "clients g", "status", "clients")
"""What a narrow terminal does without; further metrics before any of them."""


def rounds_table(
    rounds: Sequence[RoundSummary], metrics: tuple[str, ...], width: int | None = None
) -> Table:
    """Rounds as a table; figures in grams with the same number of decimals throughout.

    What ``width`` cells have no room for is left out, column by column.
    """
    columns = _columns(rounds, metrics)
    if width is not None:
        for name in (*reversed(metrics[1:]), *_LEAST_FIRST):
            if sum(map(_cells, columns.items())) > width:
                columns.pop(name, None)
    table = Table(box=None, header_style="bold")
    for heading in columns:
        table.add_column(
            Text(inert(heading)), justify="left" if heading == _LEFT else "right", no_wrap=True
        )
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _cells(column: tuple[str, list[str]]) -> int:
    heading, values = column
    return max(map(cell_len, (heading, *values))) + _BETWEEN


def _columns(rounds: Sequence[RoundSummary], metrics: tuple[str, ...]) -> dict[str, list[str]]:
    """Every column by its heading."""
    values = [{**row.train_metrics, **row.evaluate_metrics} for row in rounds]
    known = [r.total_emissions_kg for r in rounds if r.total_emissions_kg]
    places = decimals_for(min(known) * GRAMS_PER_KG) if known else 2
    return {
        "round": [_name(row) for row in rounds],
        "status": [row.status for row in rounds],
        "s": [f"{row.duration_s:.1f}" for row in rounds],
        **{name: _metric(name, values) for name in metrics if any(name in v for v in values)},
        "server g": [_grams(row.server_emissions_kg, places) for row in rounds],
        "clients g": [_grams(row.clients_emissions_kg, places) for row in rounds],
        "total g": [_grams(row.total_emissions_kg, places) for row in rounds],
        "cumulative g": [_grams(row.cumulative_emissions_kg, places) for row in rounds],
        "clients": [
            f"{row.participants - row.failed}/{row.participants}" if row.participants else ""
            for row in rounds
        ],
        "reported": [
            "" if row.reported is None or not row.participants else f"{row.reported}"
            for row in rounds
        ],
    }


def _name(row: RoundSummary) -> str:
    name = "set-up" if row.round == 0 else str(row.round)
    return name if row.attempt == 1 else f"{name} ({row.attempt})"


def _metric(name: str, values: Sequence[Mapping[str, float]]) -> list[str]:
    return [f"{row[name]:.4g}" if name in row else "" for row in values]


def _grams(emissions_kg: float | None, places: int) -> str:
    return "" if emissions_kg is None else grams(emissions_kg, places)
