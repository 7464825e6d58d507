"""Numbers, times and lists as they stand in a sentence. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from math import floor, log10

from telemetry.domain import GRAMS_PER_KG


def number(value: float) -> str:
    """Four digits, never with an exponent."""
    return format(Decimal(f"{value:.4g}"), "f")


def grams(emissions_kg: float, places: int | None = None) -> str:
    """Emissions in grams with their unit: four digits, or so many decimals."""
    value = emissions_kg * GRAMS_PER_KG
    return f"{number(value) if places is None else f'{value:.{places}f}'} g CO2eq"


def places_for(emissions_kg: Iterable[float]) -> int:
    """Decimals by which figures that stand together show three digits of the smallest."""
    values = [value * GRAMS_PER_KG for value in emissions_kg if value > 0]
    return max(2, 2 - floor(log10(min(values)))) if values else 2


def kwh(energy_kwh: float) -> str:
    """Energy with its unit."""
    return f"{number(energy_kwh)} kWh"


def percent(share: float) -> str:
    """A share of 1."""
    return f"{number(share * 100)} %"


def times(count: int, noun: str) -> str:
    """``1 round``, ``2 rounds``."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def is_or_are(count: int) -> str:
    """The verb after `times`."""
    return "is" if count == 1 else "are"


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def sentence(words: str) -> str:
    """A capital at the beginning, a full stop at the end."""
    return f"{words[0].upper()}{words[1:]}."


def utc_day(moment: datetime) -> str:
    """The day of a time in UTC."""
    return f"{moment:%Y-%m-%d} UTC"
