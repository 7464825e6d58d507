"""The frame of a plot: two linear scales with round ticks, grid, names. Coordinates are SVG's own.

Text is laid out for `TEXT` units; the style sheet makes it smaller where a plot is drawn large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from telemetry.report.figures import short
from telemetry.report.markup import Content, Html, element, joined

WIDTH: Final = 520.0
HEIGHT: Final = 250.0
TEXT: Final = 14.0
"""Height of text, at most, in units of the plot."""
LEFT, RIGHT, TOP, BOTTOM = 62.0, 508.0, 14.0, 206.0
"""Where the plot's area begins and ends."""
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to coordinates, with the ticks between ``low`` and ``high``."""

    low: float
    high: float
    begin: float
    end: float
    ticks: tuple[float, ...]
    decimals: int

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        return self.begin + (value - self.low) / (self.high - self.low) * (self.end - self.begin)

    def label(self, tick: float) -> str:
        """A tick as text, with as many decimals as all others."""
        if max(abs(self.low), abs(self.high)) >= 1e9 or self.decimals > 9:
            return f"{tick:.2e}"
        return short(tick, self.decimals)


def scale(
    values: Iterable[float], begin: float, end: float, *, from_zero: bool, most_ticks: int = 6
) -> Scale:
    """A scale that holds these values and ends at ticks: 1, 2, 2.5 or 5 times a power of ten apart."""
    found = list(values)
    low, high = min(found), max(found)
    if from_zero:
        low, high = min(0.0, low), max(0.0, high)
    if low == high:
        around = abs(low) * 0.05 or 1.0
        low, high = (low, high + around) if from_zero else (low - around, high + around)
    step = _step((high - low) / max(1, most_ticks - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(number * step for number in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], begin, end, ticks, _decimals(step))


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * step for step in _STEPS if power * step >= least * (1 - 1e-9))


def _decimals(step: float) -> int:
    """Enough to write a step, and so every tick."""
    return next((n for n in range(12) if math.isclose(round(step, n), step, rel_tol=1e-6)), 12)


def whole_ticks(numbers: Sequence[int], most: int = 9) -> Iterator[int]:
    """Numbers of rounds to name below bars: evenly apart, as many as there is room for."""
    step = next(
        power * factor
        for power in (10**n for n in count())
        for factor in (1, 2, 5)
        if (numbers[-1] - numbers[0]) / (power * factor) < most
    )
    return (number for number in numbers if number % step == 0)


def frame(x: Scale | None, y: Scale, x_name: str, y_name: str) -> Html:
    """Grid, axes and names; ``x`` None for one that names its own places."""
    across = [
        element("line", x1=LEFT, x2=RIGHT, y1=y(tick), y2=y(tick), class_="grid")
        for tick in y.ticks
    ]
    aside = [label(LEFT - 7, y(tick) + 4, y.label(tick), "end") for tick in y.ticks]
    below: list[Html] = []
    if x is not None:
        for tick in x.ticks:
            below.append(
                element("line", x1=x(tick), x2=x(tick), y1=BOTTOM, y2=BOTTOM + 4, class_="axis")
            )
            below.append(label(x(tick), BOTTOM + 18, x.label(tick), "middle"))
    return joined(
        across,
        element("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis"),
        aside,
        below,
        label((LEFT + RIGHT) / 2, HEIGHT - 8, x_name, "middle", "name"),
        element(
            "text", y_name, class_="name", text_anchor="middle",
            transform=f"translate(13 {(TOP + BOTTOM) / 2:g}) rotate(-90)",
        ),
    )  # fmt: skip


def label(x: float, y: float, text: str, anchor: str, kind: str | None = None) -> Html:
    """Text at a place."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def plot(identifier: str, title: str, description: str, *contents: Content) -> Html:
    """A picture with a name and a description for those who do not see it."""
    return element(
        "svg",
        element("title", title, id=f"{identifier}-title"),
        element("desc", description, id=f"{identifier}-desc"),
        *contents,
        xmlns="http://www.w3.org/2000/svg",
        class_="plot",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-desc",
    )
