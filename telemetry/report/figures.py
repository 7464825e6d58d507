"""Figures for the eye, with the exact number in the markup; emissions and energies in one unit each.

A report speaks of one run, so that one unit fits all of it: grams or kilograms, not both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from telemetry.report.markup import Html, element, joined

UNKNOWN: Final = "–"
DIGITS: Final = 4
MOST_DECIMALS: Final = 9
SMALLEST: Final = 1e-6
"""What is smaller is shown with an exponent."""
_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_SPACE: Final = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit that people read, and how many of it are one of the stored unit."""

    name: str
    factor: float


_EMISSIONS: Final = (Unit("g", 1e3), Unit("kg", 1.0), Unit("t", 1e-3))
_ENERGY: Final = (Unit("Wh", 1e3), Unit("kWh", 1.0), Unit("MWh", 1e-3))


@dataclass(frozen=True, slots=True)
class Units:
    """What a report's emissions (stored in kg) and energies (in kWh) are shown in."""

    emissions: Unit
    energy: Unit

    @classmethod
    def of(
        cls, emissions_kg: Iterable[float | None], energies_kwh: Iterable[float | None]
    ) -> Units:
        """Fit for the greatest of these: below 1,000 where a unit is large enough."""
        return cls(_fit(_EMISSIONS, emissions_kg), _fit(_ENERGY, energies_kwh))

    @property
    def co2eq(self) -> str:
        """The unit of emissions with its substance."""
        return f"{self.emissions.name} CO₂eq"


def _fit(units: tuple[Unit, ...], values: Iterable[float | None]) -> Unit:
    greatest = max((value for value in values if value is not None), default=0.0)
    return next((unit for unit in units if greatest * unit.factor < 1000.0), units[-1])


def short(value: float, decimals: int | None = None) -> str:
    """Four digits, or so many decimals; what is not 0 never looks like 0."""
    if decimals is None:
        if 0 < abs(value) < SMALLEST:
            return f"{value:.{DIGITS - 1}e}"
        text = _fixed(value, decimals_for((value,)))
        return text.rstrip("0").rstrip(".") if "." in text else text
    text = _fixed(value, decimals)
    if value and not text.strip("-0."):
        least = _fixed(10.0**-decimals, decimals)
        return f"<{least}" if value > 0 else f">-{least}"
    return text


def decimals_for(values: Iterable[float | None]) -> int:
    """Decimals that show four digits of the greatest of figures that stand together."""
    greatest = max((abs(value) for value in values if value is not None), default=0.0)
    if greatest <= 0:
        return 0
    exponent = int(f"{greatest:.{DIGITS - 1}e}".partition("e")[2])
    return min(MOST_DECIMALS, max(0, DIGITS - 1 - exponent))


def percent(share: float) -> str:
    """A share of 1; never 0 % or 100 % where it is only near."""
    rounded = round(share * 100, 1)
    if share > 0 and rounded == 0:
        return f"<0.1{_SPACE}%"
    if share < 1 and rounded == 100:
        return f">99.9{_SPACE}%"
    return f"{rounded:g}{_SPACE}%"


def figure(
    value: float | None,
    name: str | None = None,
    unit: Unit | None = None,
    *,
    decimals: int | None = None,
    substance: str = "",
    bare: bool = False,
) -> Html:
    """A figure, under its name in the exports; a dash where it is unknown.

    ``unit`` is what it is shown in, ``bare`` leaves its name to a heading.
    """
    if value is None:
        return joined(UNKNOWN)
    text = short(value * (1.0 if unit is None else unit.factor), decimals)
    if unit is not None and not bare:
        text += f"{_SPACE}{unit.name}{substance}"
    return element("data", text, value=repr(value), data_figure=name)


def count(value: int | None, name: str | None = None) -> Html:
    """A whole number."""
    if value is None:
        return joined(UNKNOWN)
    return element("data", _fixed(value, 0), value=str(value), data_figure=name)


def share(value: float | None, name: str | None = None) -> Html:
    """A share of 1 in per cent."""
    if value is None:
        return joined(UNKNOWN)
    return element("data", percent(value), value=repr(value), data_figure=name)


def _fixed(value: float, decimals: int) -> str:
    """Rounded from the exact value, halves away from zero, thousands apart."""
    step = Decimal(1).scaleb(-decimals)
    exact = Decimal(value)
    if exact.adjusted() + decimals > 26:  # beyond the digits of a Decimal's context
        return f"{value:.3e}"
    return format(exact.quantize(step, ROUND_HALF_UP), ",f").replace(",", _THIN)
