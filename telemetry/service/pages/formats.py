"""How values look on a page. ``static/formats.js`` is the same in JavaScript; a test holds them equal.

Figures come in the units of the interface (kg, kWh, shares) and are shown in g, Wh and per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from types import MappingProxyType
from typing import Any, Final

UNKNOWN: Final = "–"
MOST_DECIMALS: Final = 9
GROUPED_FROM: Final = 10_000
SMALLEST: Final = 1e-4
GREATEST: Final = 1e15
"""Beyond these a figure is shown with an exponent."""

FACTORS: Final[Mapping[str, float]] = MappingProxyType(
    {
        "count": 1.0,
        "number": 1.0,
        "seconds": 1.0,
        "percent": 100.0,  # of a share
        "grams": 1e3,  # of kg
        "watt_hours": 1e3,  # of kWh
        "megabytes": 1e-6,  # of bytes
    }
)
"""Kinds of figures, and what turns the interface's unit into the one that is shown."""


def short(value: float, decimals: int | None = None) -> str:
    """A figure for the eye: four digits, or so many decimals where a column needs to be even.

    What is not 0 never looks like 0.
    """
    size = abs(value)
    if size == 0 and decimals is None:
        return "0"
    if size >= GREATEST:
        return _exponential(value)
    if decimals is not None:
        text = _fixed(value, decimals)
        return short(value) if value and not text.strip("-0.,") else text
    if size >= GROUPED_FROM:
        return _fixed(value, 0)
    if size < SMALLEST:
        return _exponential(value)
    text = _fixed(value, max(0, 3 - _exponent(size)))
    return text.rstrip("0").rstrip(".") if "." in text else text


def even(values: Iterable[float | None]) -> int | None:
    """Decimals by which the figures of a column have one form: four digits of the greatest."""
    greatest = max((abs(value) for value in values if value is not None), default=0.0)
    if greatest == 0:
        return None
    return min(MOST_DECIMALS, max(0, 3 - _exponent(greatest)))


def shown(value: Any, kind: str, decimals: int | None = None) -> str:
    """A value of the interface as text; a dash where it is unknown."""
    if value is None:
        return UNKNOWN
    if kind in FACTORS:
        return short(scaled(value, kind), 0 if kind == "count" else decimals)
    return _TEXTS[kind](value)


def scaled(value: float, kind: str) -> float:
    """A figure in the unit that is shown."""
    return value * FACTORS[kind]


def _fixed(value: float, decimals: int) -> str:
    """Rounded from the exact value, halves away from zero, thousands apart."""
    step = Decimal(1).scaleb(-decimals)
    return format(Decimal(value or 0.0).quantize(step, ROUND_HALF_UP), ",f")  # -0.0 is 0


def _exponential(value: float) -> str:
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _exponent(size: float) -> int:
    return int(f"{size:.3e}".partition("e")[2])


def _moment(value: str) -> str:
    """``2026-01-31T09:30:00.000000Z`` as ``2026-01-31 09:30:00 UTC``."""
    return f"{value[:10]} {value[11:19]} UTC"


def _words(value: str) -> str:
    """``stopped_on_budget`` as words."""
    return value.replace("_", " ")


_TEXTS: Final[Mapping[str, Callable[[Any], str]]] = MappingProxyType(
    {"text": str, "moment": _moment, "words": _words}
)
KINDS: Final = (*FACTORS, *_TEXTS)
