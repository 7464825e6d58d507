"""The plots of a report. None computes a figure: bars, points and lines are at what the store says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from telemetry.analysis.value import Step, Value
from telemetry.report.axes import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    Scale,
    frame,
    label,
    plot,
    scale,
    whole_ticks,
)
from telemetry.report.blocks import Block, block_size, blocks
from telemetry.report.facts import Facts
from telemetry.report.figures import Units, short
from telemetry.report.markup import Html, element, joined

MOST_BARS: Final = 60
MOST_MARKERS: Final = 60
TOWERING: Final = 3.0
"""A set-up so many times the highest round would hide the rounds: it is told, not drawn."""
LONGEST_NAME: Final = 24
NEAR: Final = 1.5
"""A budget so many times what was spent would press the rounds together: it is told, not drawn."""
_HATCH: Final = "clients-hatch"


def hatch() -> Html:
    """What clients are filled with: a colour, and lines that are seen without it."""
    return element(
        "svg",
        element(
            "defs",
            element(
                "pattern",
                element("rect", width=6, height=6, class_="clients"),
                element("path", d="M0 6L6 0M-1 1L1 -1M5 7L7 5", class_="hatch"),
                id=_HATCH,
                width=6,
                height=6,
                patternUnits="userSpaceOnUse",
            ),
        ),
        width=0,
        height=0,
        aria_hidden="true",
        focusable="false",
        class_="unseen",
    )


def swatch(kind: str) -> Html:
    """A sample of a filling or a mark, for a legend."""
    if kind in ("server", "clients"):
        drawn = _bar(kind, 0.5, 0.5, 17.0, 10.0)
    elif kind == "part":
        drawn = _part(9.0, 2.0)
    elif kind == "best":
        drawn = _best(9.0, 5.5)
    else:
        drawn = joined(
            element("line", x1=0, x2=18, y1=5.5, y2=5.5, class_=kind),
            element("circle", cx=9, cy=5.5, r=3, class_="point") if kind == "line" else None,
        )
    return element("svg", drawn, class_="swatch", viewBox="0 0 18 11", aria_hidden="true")


# --- emissions by round --------------------------------------------------------------------------


def drawn_blocks(facts: Facts) -> tuple[list[Block], Block | None, int]:
    """The blocks that are bars, a set-up that is left out for its height, and rounds to a block."""
    size = block_size(facts.rounds, MOST_BARS)
    found = blocks(facts.rounds, size)
    if len(found) > 1 and found[0].first == 0:
        highest = max(_mean(block, "total_emissions_kg") or 0.0 for block in found[1:])
        if (found[0].sum("total_emissions_kg") or 0.0) > TOWERING * highest:
            return found[1:], found[0], size
    return found, None, size


def emissions_by_round(facts: Facts, units: Units) -> Html | None:
    """Bars of server and clients; None where no round's emissions are known."""
    bars, _, size = drawn_blocks(facts)
    factor = units.emissions.factor
    totals = [_mean(block, "total_emissions_kg") for block in bars]
    known = [value * factor for value in totals if value is not None]
    if not known:
        return None
    y = scale(known, BOTTOM, TOP, from_zero=True)
    gap = 1 if bars[0].first == 0 and len(bars) > 1 else 0
    slot = (RIGHT - LEFT) / (len(bars) + gap)
    width = min(slot * 0.8, 44.0)
    drawn: list[Html] = []
    for place, block in enumerate(bars):
        middle = LEFT + slot * (place + 0.5 + (gap if place else 0))
        drawn.append(_stack(block, middle, width, y, factor, units))
        if not block.complete:
            drawn.append(_part(middle, BOTTOM + 2))
    per = "" if size == 1 else f" (mean of each {size} rounds)"
    return plot(
        "plot-emissions",
        "Emissions by round",
        _told(bars, totals, units, size),
        frame(None, y, f"round{per}", units.co2eq),
        drawn,
        _round_names(bars, slot, gap),
    )


def _stack(
    block: Block, middle: float, width: float, y: Scale, factor: float, units: Units
) -> Html:
    server, clients = _mean(block, "server_emissions_kg"), _mean(block, "clients_emissions_kg")
    low, high = y(0.0), y((server or 0.0) * factor)
    top = y(((server or 0.0) + (clients or 0.0)) * factor)
    left = middle - width / 2
    tip = f"{block.name}: server {_words(server, units)}, clients {_words(clients, units)}"
    return element(
        "g",
        element("title", tip),
        _bar("server", left, high, width, low - high) if server else None,
        _bar("clients", left, top, width, high - top) if clients else None,
        None if server is not None or clients is not None else label(middle, BOTTOM - 5, "?", "middle"),
    )  # fmt: skip


def _round_names(bars: Sequence[Block], slot: float, gap: int) -> Html:
    numbers = [block.last for block in bars if block.first > 0]
    wanted = set(whole_ticks(numbers)) if numbers else set()
    names = []
    for place, block in enumerate(bars):
        middle = LEFT + slot * (place + 0.5 + (gap if place else 0))
        if block.first == 0:
            names.append(label(max(middle, LEFT + 22), BOTTOM + 18, "set-up", "middle"))
        elif block.last in wanted:
            names.append(label(middle, BOTTOM + 18, str(block.last), "middle"))
    return joined(names)


def _told(bars: Sequence[Block], totals: Sequence[float | None], units: Units, size: int) -> str:
    known = [(value, block) for value, block in zip(totals, bars, strict=True) if value is not None]
    (least, low), (most, high) = min(known, key=_value), max(known, key=_value)
    bar = "a round" if size == 1 else f"{size} rounds, at their mean"
    return (
        f"{len(bars)} bars, each {bar}, split into server and clients. Lowest {_words(least, units)} "
        f"({low.name}), highest {_words(most, units)} ({high.name}). The table of rounds has every "
        "figure."
    )


def _value(item: tuple[float, Block]) -> float:
    return item[0]


def _mean(block: Block, figure: str) -> float | None:
    """Of a block's rounds; of a single one the sum of its attempts."""
    known = block.sum(figure)
    return None if known is None else known / block.rounds


def _words(kg: float | None, units: Units) -> str:
    return "unknown" if kg is None else f"{short(kg * units.emissions.factor)} {units.co2eq}"


# --- the value metric against what it cost ----------------------------------------------------------


def value_against_emissions(facts: Facts, units: Units) -> Html | None:
    """A line through the rounds; None where no round has both figures."""
    value = facts.value
    if value is None:
        return None
    factor = units.emissions.factor
    found = [(step, step.spent_kg * factor) for step in value.steps if step.spent_kg is not None]
    if not found:
        return None
    budget_kg = drawn_budget_kg(facts)
    budget = [] if budget_kg is None else [budget_kg * factor]
    spent_so_far = [spent for _, spent in found]
    x = scale([*spent_so_far, *budget], LEFT, RIGHT, from_zero=True, most_ticks=7)
    y = scale([step.value for step, _ in found], BOTTOM, TOP, from_zero=False)
    points = [(x(spent), y(step.value)) for step, spent in found]
    line = " ".join(f"{across:.1f},{up:.1f}" for across, up in points)
    return plot(
        "plot-value",
        f"{value.metric} against cumulative emissions",
        _told_value(value, found, units),
        frame(x, y, f"{units.co2eq} since the start", _fitting(value.metric)),
        [_budget_line(x(at)) for at in budget],
        element("polyline", points=line, class_="line") if len(points) > 1 else None,
        [_point(at, step) for at, (step, _) in zip(points, found, strict=True)]
        if len(points) <= MOST_MARKERS
        else None,
        [
            _best(across, up)
            for (across, up), (step, _) in zip(points, found, strict=True)
            if step is value.best
        ],
    )


def _fitting(name: str) -> str:
    """A name that has room beside its axis; the caption has it whole."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def drawn_budget_kg(facts: Facts) -> float | None:
    """The budget, where it is near enough to be a line in the plot."""
    budget, spent = facts.run.info.budget_kg, facts.total_kg
    return budget if budget and spent is not None and budget <= NEAR * spent else None


def _point(at: tuple[float, float], step: Step) -> Html:
    tip = element("title", f"round {step.round}: {short(step.value)}")
    return element("circle", tip, cx=at[0], cy=at[1], r=3, class_="point")


def _budget_line(x: float) -> Html:
    end = "end" if x > (LEFT + RIGHT) / 2 else "start"
    return joined(
        element("line", x1=x, x2=x, y1=TOP, y2=BOTTOM, class_="budget"),
        label(x + (-5 if end == "end" else 5), BOTTOM - 6, "budget", end),
    )


def _told_value(value: Value, found: Sequence[tuple[Step, float]], units: Units) -> str:
    (first, _), (last, spent) = found[0], found[-1]
    return (
        f"A line over {len(found)} rounds: {value.metric} from {short(first.value)} in round "
        f"{first.round} to {short(last.value)} in round {last.round}, when {short(spent)} "
        f"{units.co2eq} had been emitted; best {short(value.best.value)} in round {value.best.round}."
    )


# --- marks -----------------------------------------------------------------------------------------


def _bar(kind: str, x: float, y: float, width: float, height: float) -> Html:
    fill = f"url(#{_HATCH})" if kind == "clients" else None
    return element(
        "rect", x=x, y=y, width=width, height=max(0.3, height), class_=f"bar {kind}-bar", fill=fill
    )


def _part(x: float, y: float) -> Html:
    """A small triangle below what is not complete."""
    return element("path", d=f"M{x:.1f} {y:.1f}l3.2 5.6h-6.4z", class_="part")


def _best(x: float, y: float) -> Html:
    """A diamond around the best value."""
    return element("path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z", class_="best")


def share_bar(share: float, kind: str) -> Html:
    """A horizontal bar as long as a share of 1."""
    return element(
        "svg",
        _bar(kind, 0.0, 0.0, max(0.4, share * 200), 12.0),
        class_="share",
        viewBox="0 0 200 12",
        preserveAspectRatio="none",
        aria_hidden="true",
    )
