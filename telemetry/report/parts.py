"""Small parts that every section is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from telemetry.report.markup import Content, Html, element

MOST_NAMES: Final = 12
"""Of words that clients may make up: so many are shown."""


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered part of the report."""

    identifier: str
    title: str
    body: Html


def facts_list(items: Iterable[tuple[Content, Content]], kind: str = "facts") -> Html:
    """Names and what holds for them; what is None is left out."""
    return element(
        "dl",
        [
            element("div", element("dt", name), element("dd", value))
            for name, value in items
            if value is not None
        ],
        class_=kind,
    )


def paragraph(*words: Content, kind: str | None = None) -> Html:
    """A paragraph."""
    return element("p", *words, class_=kind)


def points(items: Sequence[Content], kind: str | None = None) -> Html | None:
    """A list; None without anything in it."""
    if not items:
        return None
    return element("ul", [element("li", item) for item in items], class_=kind)


def plot_figure(
    picture: Html, caption: Content, legend: Sequence[tuple[Html, Content]] = ()
) -> Html:
    """A plot with its legend and what it shows in words."""
    entries = [element("li", sample, words) for sample, words in legend]
    return element(
        "figure",
        element("figcaption", caption),
        element("ul", entries, class_="legend") if entries else None,
        picture,
    )


def moment(value: datetime | None) -> Html | None:
    """A time to the second, in UTC."""
    if value is None:
        return None
    utc = value.astimezone(UTC)
    return element("time", f"{utc:%Y-%m-%d %H:%M:%S} UTC", datetime=f"{utc:%Y-%m-%dT%H:%M:%S}Z")


def duration(seconds: float) -> str:
    """``2 h 5 min``, ``3 min 20 s``, ``8.4 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    days, whole = divmod(whole, 86400)
    hours, whole = divmod(whole, 3600)
    minutes, rest = divmod(whole, 60)
    told = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next(place for place, (number, _) in enumerate(told) if number)
    return " ".join(f"{number} {unit}" for number, unit in told[first : first + 2] if number)


def code(words: str) -> Html:
    """What is typed."""
    return element("code", words)


def ordered(found: Mapping[str, int]) -> list[tuple[str, int]]:
    """Counted words, the most frequent first, by name where equal."""
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))
