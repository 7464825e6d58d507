"""How the run went: its plots, where the server's energy went, and its rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from telemetry.domain import SERVER_PHASES, ServerPhase
from telemetry.report.charts import (
    drawn_blocks,
    drawn_budget_kg,
    emissions_by_round,
    share_bar,
    swatch,
    value_against_emissions,
)
from telemetry.report.facts import Facts
from telemetry.report.figures import UNKNOWN, Units, decimals_for, figure, percent, short
from telemetry.report.markup import Content, Html, element, joined, said
from telemetry.report.parts import Section, paragraph, plot_figure
from telemetry.report.tables import (
    MOST_ROWS,
    Column,
    blocks_table,
    is_blocked,
    rounds_table,
    scrolling,
    table,
)

PHASES: Final[Mapping[ServerPhase, str]] = {
    "setup": "Set-up: before the first round, waiting for clients included",
    "configure": "Configuring: choosing clients and writing their messages",
    "wait": "Waiting: while clients train",
    "aggregate": "Aggregating: making one model of theirs",
    "evaluate": "Evaluating: while clients evaluate, and the server",
    "idle": "Idle: between these",
}
DASH_NOTE: Final = f"{UNKNOWN} is unknown, and never 0."


def plots(facts: Facts, units: Units) -> Section | None:
    """Emissions by round, value against emissions, energy by phase."""
    found = [
        part
        for part in (
            _emissions(facts, units) if facts.method.tracked else None,
            _value(facts, units) if facts.method.tracked else None,
            _phases(facts, units),
        )
        if part is not None
    ]
    return Section("plots", "At a glance", joined(found)) if found else None


def _emissions(facts: Facts, units: Units) -> Html | None:
    if not facts.rounds:
        return None
    picture = emissions_by_round(facts, units)
    if picture is None:
        return None
    bars, left_out, size = drawn_blocks(facts)
    legend: list[tuple[Html, Content]] = [
        (swatch("server"), "server"),
        (swatch("clients"), "clients, as counted"),
    ]
    if not all(bar.complete for bar in bars):
        legend.append((swatch("part"), "not complete: not everybody reported, or not all metered"))
    set_up = None
    if left_out is not None:
        kg = left_out.sum("total_emissions_kg")
        set_up = joined(
            " The set-up is not drawn, for it would hide the rounds: ",
            figure(kg, unit=units.emissions), " CO₂eq.",
        )  # fmt: skip
    each = "" if size == 1 else f" Each bar is the mean of {size} rounds."
    caption = joined(_strong("Emissions by round"), ", measured, server and clients.", each, set_up)
    return plot_figure(picture, caption, legend)


def _value(facts: Facts, units: Units) -> Html | None:
    value = facts.value
    picture = value_against_emissions(facts, units)
    if value is None or picture is None:
        name = facts.run.info.value_metric
        why = "no round has it" if value is None else "the emissions behind its rounds are unknown"
        return paragraph("No plot of ", said(name), " against emissions: ", why, ".", kind="note")
    where = "the clients' evaluation" if value.split == "evaluate" else "training"
    caption = joined(
        _strong(said(value.metric), " against cumulative emissions"),
        f", from {where}, set-up and every attempt included; it begins at the first value and its axis "
        f"need not begin at 0. Best {short(value.best.value)} in round {value.best.round}.",
    )
    legend: list[tuple[Html, Content]] = [(swatch("line"), "a round"), (swatch("best"), "the best")]
    budget = drawn_budget_kg(facts)
    if budget is not None:
        legend.append((swatch("budget"), joined("budget, ", figure(budget, unit=units.emissions))))
    return plot_figure(picture, caption, legend)


def _strong(*words: Content) -> Html:
    return element("strong", *words)


# --- the server's energy ---------------------------------------------------------------------------


def _phases(facts: Facts, units: Units) -> Html | None:
    energies = facts.run.totals.phase_energy_kwh
    known = [kwh for phase in SERVER_PHASES if (kwh := energies.get(phase)) is not None]
    total = sum(known)
    if not known or not total:
        return None
    greatest = max(known)
    unit = units.energy
    places = decimals_for([greatest * unit.factor])

    def bar(phase: ServerPhase) -> Html:
        kwh = energies.get(phase)
        return joined(UNKNOWN) if kwh is None else share_bar(kwh / greatest, "server")

    def part(phase: ServerPhase) -> Html:
        kwh = energies.get(phase)
        return joined(UNKNOWN if kwh is None else percent(kwh / total))

    columns: list[Column[ServerPhase]] = [
        Column(heading="Phase", cell=lambda phase: joined(PHASES[phase]), number=False),
        Column(heading=element("span", "Bar", class_="unseen"), cell=bar, number=False),
        Column(
            heading=unit.name,
            cell=lambda phase: figure(
                energies.get(phase), f"phase_energy_kwh.{phase}", unit, decimals=places, bare=True
            ),
        ),
        Column(heading="Share", cell=part),
    ]
    caption = joined(
        _strong("The server's energy by phase"),
        ", at its meter: before PUE, and before clients on its machine are split off. ",
        DASH_NOTE,
    )
    return table(caption, columns, SERVER_PHASES, class_="phases")


# --- the rounds ------------------------------------------------------------------------------------


def rounds(facts: Facts, units: Units) -> Section | None:
    """The table in the text: by rounds, or by blocks of them."""
    if not facts.rounds:
        return None
    blocked = is_blocked(facts)
    content = blocks_table(facts, units) if blocked else rounds_table(facts, units)
    return Section(
        "rounds",
        "Rounds",
        joined(
            scrolling(content, "Rounds"),
            _notes(facts),
        ),
    )


def annex(facts: Facts, units: Units) -> Section | None:
    """Every round, where the text has blocks."""
    if not is_blocked(facts):
        return None
    content = rounds_table(facts, units)
    more = len(facts.rounds) - MOST_ROWS
    note = f"The first {MOST_ROWS} of {len(facts.rounds)} lines." if more > 0 else None
    body = joined(scrolling(content, "Every round", "long"), paragraph(note) if note else None)
    return Section("annex", "Annex: every round", body)


def _notes(facts: Facts) -> Html:
    words = [
        "The set-up (round 0) is everything before the first round, mostly waiting for clients. A round "
        "lasts until the next begins, so that the rounds add up to the run.",
        DASH_NOTE,
    ]
    if facts.method.tracked:
        words.insert(
            1,
            "Energies are at the meter, before PUE; emissions include it. “Reported” is accepted "
            "reports ÷ clients asked to train.",
        )
    return paragraph(" ".join(words), kind="note")
