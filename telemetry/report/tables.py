"""Tables: what a column is, and the tables of rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from telemetry.domain import RoundSummary
from telemetry.report.blocks import Block, block_size, blocks
from telemetry.report.facts import Facts
from telemetry.report.figures import UNKNOWN, Unit, Units, count, decimals_for, figure, short
from telemetry.report.markup import Content, Html, element, joined, said

MOST_BLOCKS: Final = 24
"""With so many rounds or fewer each has its line in the text; with more, the text has blocks."""
MOST_ROWS: Final = 2000
"""Lines that the annex has at the most: the exports have them all."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Generic[T]):
    """A column: its heading, and what stands in it for a row."""

    heading: Content
    cell: Callable[[T], Html]
    number: bool = True
    figure: str | None = None
    """The figure's name in the exports, where it has one."""


def table(
    caption: Content,
    columns: Sequence[Column[T]],
    rows: Iterable[T],
    foot: Html | None = None,
    **kind: str,
) -> Html:
    """A table whose first column names the row; its head is repeated on each page."""
    head = element(
        "tr",
        [
            element("th", c.heading, scope="col", class_="n" if c.number else None, data_figure=c.figure)
            for c in columns
        ],
    )  # fmt: skip
    return element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", [_row(columns, row) for row in rows]),
        None if foot is None else element("tfoot", foot),
        **kind,
    )


def _row(columns: Sequence[Column[T]], row: T) -> Html:
    first, *others = columns
    cells = [element("td", c.cell(row), class_="n" if c.number else None) for c in others]
    return element("tr", element("th", first.cell(row), scope="row"), cells)


def scrolling(content: Html, name: str, kind: str = "") -> Html:
    """What is wider or longer than a screen: it scrolls there, by keyboard too, and is whole in print."""
    return element(
        "div",
        content,
        class_=f"scroll {kind}".strip(),
        role="region",
        aria_label=name,
        tabindex="0",
    )


# --- rounds ----------------------------------------------------------------------------------------


def is_blocked(facts: Facts) -> bool:
    """Whether the table in the text is by blocks, and the annex has the rounds."""
    return block_size(facts.rounds, MOST_BLOCKS) > 1


def rounds_table(facts: Facts, units: Units) -> Html:
    """One line a round and attempt."""
    rows = facts.rounds[:MOST_ROWS]
    columns: list[Column[RoundSummary]] = [
        Column(heading="Round", cell=_round_name, number=False, figure="round"),
        Column(heading="Status", cell=lambda row: joined(row.status), number=False),
        _figures(rows, "Seconds", "duration_s", None),
        *_emissions_and_energies(facts, rows, units),
        Column(heading="Reported", cell=_reported, figure="reported"),
        *(
            Column(
                heading=said(name), cell=_metric_cell(rows, split, name), figure=f"{split}_{name}"
            )
            for split, name in metrics_shown(facts)
        ),
    ]
    more = len(facts.rounds) - len(rows)
    caption = "Every closed round" + (f"; {more} more are in the exports" if more else "")
    return table(
        caption, columns, rows, None if more else _sum_row(facts, units, columns), class_="rounds"
    )


def blocks_table(facts: Facts, units: Units) -> Html:
    """One line a block of rounds."""
    size = block_size(facts.rounds, MOST_BLOCKS)
    rows = blocks(facts.rounds, size)
    columns: list[Column[Block]] = [
        Column(heading="Rounds", cell=lambda block: joined(block.name), number=False),
        _sums(rows, "Seconds", "duration_s", None),
    ]
    if facts.method.tracked:
        columns += [_sums(rows, heading, name, unit) for heading, name, unit in _measured(units)]
        columns.append(_reached(rows, units))
        columns.append(Column(heading="Reported", cell=_block_reported))
    columns += [
        Column(heading=said(name), cell=_block_metric(rows, split, name))
        for split, name in metrics_shown(facts)
    ]
    caption = f"The rounds, {size} to a line; every single one is in the annex"
    return table(caption, columns, rows, _sum_row(facts, units, columns), class_="rounds")


def _measured(units: Units) -> tuple[tuple[str, str, Unit], ...]:
    energy, emissions = units.energy, units.emissions
    return (
        (f"Server {energy.name}", "server_energy_kwh", energy),
        (f"Clients {energy.name}", "clients_energy_kwh", energy),
        (f"Server {emissions.name}", "server_emissions_kg", emissions),
        (f"Clients {emissions.name}", "clients_emissions_kg", emissions),
        (f"Total {emissions.name}", "total_emissions_kg", emissions),
    )


def _emissions_and_energies(
    facts: Facts, rows: Sequence[RoundSummary], units: Units
) -> list[Column[RoundSummary]]:
    if not facts.method.tracked:
        return []
    name = "cumulative_emissions_kg"
    return [
        *(_figures(rows, heading, figure_name, unit) for heading, figure_name, unit in _measured(units)),
        _figures(rows, f"Cumulative {units.emissions.name}", name, units.emissions),
    ]  # fmt: skip


def _figures(
    rows: Sequence[RoundSummary], heading: str, name: str, unit: Unit | None
) -> Column[RoundSummary]:
    def get(row: RoundSummary) -> float | None:
        return getattr(row, name)  # type: ignore[no-any-return]

    return _column(rows, heading, get, unit, name)


def _sums(rows: Sequence[Block], heading: str, name: str, unit: Unit | None) -> Column[Block]:
    return _column(rows, heading, lambda block: block.sum(name), unit, name)


def _reached(rows: Sequence[Block], units: Units) -> Column[Block]:
    """What was emitted up to a block's end: of its rounds the highest, for it never falls."""

    def highest(block: Block) -> float | None:
        found = (row.cumulative_emissions_kg for row in block.rows)
        return max((value for value in found if value is not None), default=None)

    unit = units.emissions
    return _column(rows, f"Cumulative {unit.name}", highest, unit, "cumulative_emissions_kg")


def _column(
    rows: Sequence[T],
    heading: str,
    get: Callable[[T], float | None],
    unit: Unit | None,
    name: str | None,
) -> Column[T]:
    """Figures with the same decimals throughout."""
    factor = 1.0 if unit is None else unit.factor
    values = [value * factor for row in rows if (value := get(row)) is not None]
    places = min(decimals_for(values), 6) if values else 0

    def cell(row: T) -> Html:
        return figure(get(row), unit=unit, decimals=places, bare=True)

    return Column(heading=heading, cell=cell, figure=name)


def _round_name(row: RoundSummary) -> Html:
    name = "set-up" if row.round == 0 else str(row.round)
    again = f" (attempt {row.attempt})" if row.attempt > 1 else ""
    return element("data", f"{name}{again}", value=str(row.round), data_attempt=row.attempt)


def _reported(row: RoundSummary) -> Html:
    if not row.participants:
        return joined(UNKNOWN)
    return joined(count(row.reported), f"/{row.participants}")


def _block_reported(block: Block) -> Html:
    asked = sum(row.participants for row in block.rows)
    return joined(count(block.count("reported")), f"/{asked}") if asked else joined(UNKNOWN)


# --- training metrics ------------------------------------------------------------------------------


def metrics_shown(facts: Facts) -> list[tuple[str, str]]:
    """(split, name) of at most two training metrics: the one that is weighed first, then another."""
    wanted = dict.fromkeys((facts.run.info.value_metric, *facts.run.info.metric_names, "loss"))
    found = []
    for name in wanted:
        for split in ("evaluate", "train"):
            if any(name in _metrics(row, split) for row in facts.rounds):
                found.append((split, name))
                break
    return found[:2]


def _metrics(row: RoundSummary, split: str) -> Any:
    return row.evaluate_metrics if split == "evaluate" else row.train_metrics


def _metric_cell(
    rows: Sequence[RoundSummary], split: str, name: str
) -> Callable[[RoundSummary], Html]:
    places = _metric_places(rows, split, name)
    return lambda row: figure(_metrics(row, split).get(name), decimals=places)


def _block_metric(rows: Sequence[Block], split: str, name: str) -> Callable[[Block], Html]:
    """The value of a block's last round that has one."""
    places = _metric_places([row for block in rows for row in block.rows], split, name)

    def cell(block: Block) -> Html:
        values = [_metrics(row, split).get(name) for row in block.rows]
        known = [value for value in values if value is not None]
        return figure(known[-1] if known else None, decimals=places)

    return cell


def _metric_places(rows: Sequence[RoundSummary], split: str, name: str) -> int | None:
    values = [v for row in rows if (v := _metrics(row, split).get(name)) is not None]
    greatest = max((abs(value) for value in values), default=0.0)
    return None if greatest >= 1e6 or (values and "e" in short(greatest)) else decimals_for(values)


# --- the last line ---------------------------------------------------------------------------------


def _sum_row(facts: Facts, units: Units, columns: Sequence[Column[Any]]) -> Html:
    """The run's own totals, not sums of what stands above."""
    totals = facts.run.totals
    known: dict[str | None, Html] = {
        name: figure(getattr(totals, name), unit=unit, bare=True)
        for _, name, unit in _measured(units)
    }
    known["total_emissions_kg"] = figure(facts.total_kg, unit=units.emissions, bare=True)
    cells = [
        element("td", known.get(column.figure), class_="n" if column.number else None)
        for column in columns[1:]
    ]
    return element("tr", element("th", "Run", scope="row"), cells)
