"""Carbon intensity of electricity, in g CO2eq per kWh: the only reader of country tables.

The tables are those that the installed codecarbon ships (countries: Our World in Data and Ember;
regions: the source that each file names), so a figure here is the one that codecarbon would use.
codecarbon itself takes a world average, without an error, for every code that it does not know;
here an unknown code is an error that names the nearest ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from telemetry.errors import TelemetryError

_COUNTRIES: Final = "global_energy_mix.json"
_SOURCES: Final = "carbon_intensity_per_source.json"
_NORDIC: Final = "nordic_emissions.json"
_USA: Final = "2023/usa_emissions.json"
_CANADA: Final = "2023/canada_energy_mix.json"
_CHINA: Final = "2023/china_provincial_emissions.json"

_WORLD_AVERAGE_YEAR: Final = 2019
"""Of the IEA report that codecarbon's file names as the source of its world average."""
_CANADA_YEAR: Final = 2023
"""Of the folder; the file itself states none."""
_NORDIC_PREFIX: Final = {"SWE": "SE", "NOR": "NO", "FIN": "FI"}
_CAVEATS: Final = {"CHN": " (CO2 only)"}
"""What the source of a table says that its figures leave out."""
_NEAR: Final = 0.6
_SHOWN: Final = 3


class UnknownCountry(TelemetryError, ValueError):
    """No country has this code; ``nearest`` are near ones, ``known`` is how many there are."""

    def __init__(self, value: str, nearest: tuple[str, ...], known: int) -> None:
        self.value = value
        self.nearest = nearest
        self.known = known
        hint = f"did you mean {_either(nearest)}?" if nearest else "none is near it;"
        super().__init__(
            f"unknown country {value!r}: {hint} {known} countries are known, "
            "by their 3-letter code (ISO 3166-1 alpha-3, upper case)"
        )


class UnknownRegion(TelemetryError, ValueError):
    """The country has no table of regions, or none by this name; ``choices`` are its regions."""

    def __init__(self, country: str | None, region: str, choices: tuple[str, ...]) -> None:
        self.country = country
        self.region = region
        self.choices = choices
        super().__init__(f"unknown region {region!r}: {self._hint()}")

    def _hint(self) -> str:
        if self.country is None:
            return "a region needs a country"
        if not self.choices:
            return (
                f"there is no table of regions for {self.country}, "
                f"only for {', '.join(countries_with_regions())}"
            )
        near = _near(self.region, {name: (name,) for name in self.choices})
        meant = f"did you mean {_either(near)}? " if near else ""
        return f"{meant}{self.country} has {', '.join(self.choices)}"


class InvalidIntensity(TelemetryError, ValueError):
    """A fixed intensity that is not a finite number of at least 0 g CO2eq per kWh."""

    def __init__(self, value: object) -> None:
        self.value = value
        super().__init__(f"carbon intensity {value!r} is not a finite number of 0 or more g/kWh")


class IntensityTablesMissing(TelemetryError):
    """codecarbon, whose tables are read, is not installed."""

    def __init__(self) -> None:
        super().__init__("codecarbon is not installed, and the country tables are part of it")


@dataclass(frozen=True, slots=True)
class Intensity:
    """A carbon intensity and where it comes from."""

    g_per_kwh: float
    source: str
    """In words, with the version of the table."""
    year: int | None
    """Of the data; None where the source states none."""
    country: str | None
    """ISO 3166-1 alpha-3; None for the world average."""
    country_name: str | None


def lookup(country: str | None, region: str | None = None, fixed: float | None = None) -> Intensity:
    """Carbon intensity of a country or region; of the world where ``country`` is None.

    ``fixed`` (g CO2eq per kWh) is used instead of a table, whose names are still checked.

    Raises `UnknownCountry`, `UnknownRegion`, `InvalidIntensity`, or `IntensityTablesMissing` where
    a table is needed and codecarbon is not installed.
    """
    if fixed is not None:
        return _fixed(country, region, fixed)
    if country is None:
        if region is not None:
            raise UnknownRegion(None, region, ())
        return _world_average()
    return _of_country(country) if region is None else _of_region(country, region)


def countries_with_regions() -> tuple[str, ...]:
    """Codes of the countries for which codecarbon ships a table of regions."""
    return ("CAN", "CHN", "FIN", "NOR", "SWE", "USA")


def _fixed(country: str | None, region: str | None, value: float) -> Intensity:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidIntensity(value)
    if not math.isfinite(value) or value < 0:
        raise InvalidIntensity(value)
    table = None if country is None and region is None else lookup(country, region)
    return Intensity(
        g_per_kwh=float(value),
        source="fixed by configuration",
        year=None,
        country=country,
        country_name=None if table is None else table.country_name,
    )


def _world_average() -> Intensity:
    average = float(_read(_SOURCES)["world_average"])
    return Intensity(
        g_per_kwh=average,
        source=f"world average, {_edition()} (IEA {_WORLD_AVERAGE_YEAR})",
        year=_WORLD_AVERAGE_YEAR,
        country=None,
        country_name=None,
    )


def _of_country(country: str) -> Intensity:
    entry = _entry(country)
    return Intensity(
        g_per_kwh=float(entry["carbon_intensity"]),
        source=f"{_edition()}, country table",
        year=int(entry["year"]),
        country=country,
        country_name=str(entry["country_name"]),
    )


def _of_region(country: str, region: str) -> Intensity:
    entry = _entry(country)
    regions = _regions(country)
    known = {name.casefold(): name for name in regions}
    name = known.get(region.strip().casefold())
    if name is None:
        raise UnknownRegion(country, region, tuple(regions))
    return Intensity(
        g_per_kwh=_regional_g_per_kwh(country, name),
        source=f"{_edition()}, table of {country} regions: {name}{_CAVEATS.get(country, '')}",
        year=regions[name],
        country=country,
        country_name=str(entry["country_name"]),
    )


def _entry(country: str) -> Mapping[str, Any]:
    countries = _read(_COUNTRIES)
    if country not in countries:
        words = {
            f"{code} ({entry['country_name']})": (code, str(entry["country_name"]))
            # A larger grid first: it decides between equally near codes (ES: ESP, EST, ESH).
            for code, entry in sorted(countries.items(), key=lambda item: -item[1]["total_TWh"])
        }
        raise UnknownCountry(country, _near(country, words), len(countries))
    entry: Mapping[str, Any] = countries[country]
    return entry


def _regions(country: str) -> dict[str, int]:
    """Names of a country's regions as codecarbon spells them, each with the year of its data."""
    match country:
        case "USA":
            table = _read(_USA)
            names = [name for name in table if not name.startswith("_")]
            return dict.fromkeys(names, int(table["_source"]["year"]))
        case "CAN":
            return dict.fromkeys(_read(_CANADA), _CANADA_YEAR)
        case "CHN":
            provinces = _read(_CHINA)["data"].values()
            return {entry["names"][0]: int(entry["year"]) for entry in provinces}
        case "SWE" | "NOR" | "FIN":
            zones = _read(_NORDIC)["data"].items()
            prefix = _NORDIC_PREFIX[country]
            return {zone: int(entry["year"]) for zone, entry in zones if zone.startswith(prefix)}
        case _:
            return {}


@cache
def _regional_g_per_kwh(country: str, region: str) -> float:
    """codecarbon's own arithmetic: its region tables differ in unit and kind (lb/MWh, mixes)."""
    from codecarbon.core.emissions import Emissions
    from codecarbon.core.units import Energy
    from codecarbon.external.geography import GeoMetadata
    from codecarbon.input import DataSource

    place = GeoMetadata(country_iso_code=country, region=region)
    one_kwh = Energy.from_energy(kWh=1.0)
    tables = DataSource()  # type: ignore[no-untyped-call]  # codecarbon left it unannotated
    return float(Emissions(tables).get_region_emissions(one_kwh, place)) * 1000.0


@cache
def _read(name: str) -> Mapping[str, Any]:
    """One of codecarbon's data files; codecarbon itself is not imported (0.3 s, and a logger)."""
    found = find_spec("codecarbon")
    if found is None or not found.submodule_search_locations:
        raise IntensityTablesMissing
    folder = Path(found.submodule_search_locations[0]) / "data" / "private_infra"
    table: Mapping[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
    return table


def _edition() -> str:
    try:
        return f"codecarbon {version('codecarbon')}"
    except PackageNotFoundError:
        return "codecarbon"


def _near(value: str, words: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """Those of ``words`` of which a spelling is like ``value``, the likest first."""
    wanted = value.strip().casefold()
    scores = {
        shown: max(_likeness(wanted, word.casefold()) for word in spellings)
        for shown, spellings in words.items()
    }
    exact = [shown for shown, score in scores.items() if score >= 1.0]
    near = exact or [shown for shown, score in scores.items() if score >= _NEAR]
    return tuple(sorted(near, key=lambda shown: -scores[shown])[:_SHOWN])


def _likeness(wanted: str, word: str) -> float:
    # Codes share their first letters with the 2-letter codes that people write by mistake.
    prefix = 0.1 if wanted and word.startswith(wanted) else 0.0
    return SequenceMatcher(None, wanted, word).ratio() + prefix


def _either(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last
