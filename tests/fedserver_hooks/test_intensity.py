"""Carbon intensities, and what is said about names that nobody knows."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from codecarbon.core.emissions import Emissions
from codecarbon.core.units import Energy
from codecarbon.external.geography import GeoMetadata
from codecarbon.input import DataSource

from fedserver_hooks.intensity import (
    InvalidIntensity,
    UnknownCountry,
    UnknownRegion,
    countries_with_regions,
    lookup,
)
from telemetry.errors import TelemetryError

_KG_PER_LB = 0.45359237


def _codecarbon_g_per_kwh(country: str, region: str | None = None) -> float:
    place = GeoMetadata(country_iso_code=country, region=region)
    emissions = Emissions(DataSource())
    return emissions.get_private_infra_emissions(Energy.from_energy(kWh=1.0), place) * 1000.0


def test_a_country_has_value_source_year_and_name() -> None:
    """Spain's figure comes with where it is from."""
    spain = lookup("ESP")
    assert spain.g_per_kwh == 174.05
    assert spain.source == "codecarbon 3.3.2, country table"
    assert (spain.year, spain.country, spain.country_name) == (2023, "ESP", "Spain")


def test_every_country_is_what_codecarbon_uses() -> None:
    """All of codecarbon's countries give the intensity that codecarbon itself applies."""
    countries = DataSource().get_global_energy_mix_data()
    assert len(countries) > 200
    for code in countries:
        assert lookup(code).g_per_kwh == pytest.approx(_codecarbon_g_per_kwh(code), rel=1e-12)


def test_without_a_country_the_world_average_is_named() -> None:
    """Nobody said where: the package's world average, labelled as one, with no country."""
    world = lookup(None)
    assert world.g_per_kwh == 475.0
    assert world.source == "world average, codecarbon 3.3.2 (IEA 2019)"
    assert (world.country, world.country_name) == (None, None)


@pytest.mark.parametrize(
    ("value", "first"),
    [
        ("ES", "ESP (Spain)"),
        ("esp", "ESP (Spain)"),
        ("Esp", "ESP (Spain)"),
        ("Spain", "ESP (Spain)"),
        ("DE", "DEU (Germany)"),
        ("Germny", "DEU (Germany)"),
    ],
)
def test_an_unknown_country_suggests_the_one_that_was_meant(value: str, first: str) -> None:
    """Two-letter codes, lower case and names are refused with the code to write."""
    with pytest.raises(UnknownCountry) as caught:
        lookup(value)
    assert caught.value.nearest[0] == first
    assert repr(value) in str(caught.value)
    assert first in str(caught.value)


@pytest.mark.parametrize("value", ["XXX", "", "1"])
def test_a_country_like_no_other_says_how_many_there_are(value: str) -> None:
    """Where nothing is near the message names value and number, and invents no suggestion."""
    with pytest.raises(UnknownCountry, match="213 countries are known") as caught:
        lookup(value)
    assert caught.value.nearest == ()
    assert repr(value) in str(caught.value)


def test_errors_are_telemetry_and_value_errors() -> None:
    """A caller may catch either kind."""
    for kind in (UnknownCountry, UnknownRegion, InvalidIntensity):
        assert issubclass(kind, TelemetryError)
        assert issubclass(kind, ValueError)


@pytest.mark.parametrize(
    ("country", "region", "g_per_kwh", "year"),
    [
        ("USA", "California", 394.769 * _KG_PER_LB, 2023),
        ("CHN", "beijing", 555.4, 2023),
        ("SWE", "se1", 25.9, 2025),
        ("NOR", "NO4", 51.7, 2025),
        ("FIN", "FI", 72.0, 2025),
    ],
)
def test_a_region_has_its_own_figure(
    country: str, region: str, g_per_kwh: float, year: int
) -> None:
    """Regions are found in any case and give the figure of their table in g/kWh."""
    found = lookup(country, region)
    assert found.g_per_kwh == pytest.approx(g_per_kwh, rel=1e-4)
    assert found.year == year
    assert region.casefold() in found.source.casefold()


def test_every_region_is_what_codecarbon_uses() -> None:
    """Each region that is offered exists in codecarbon and does not fall back to its country."""
    with pytest.raises(UnknownRegion) as caught:
        lookup("CAN", "nowhere at all")
    assert len(caught.value.choices) == 13
    for name in caught.value.choices:
        expected = _codecarbon_g_per_kwh("CAN", name)
        assert lookup("CAN", name).g_per_kwh == pytest.approx(expected, rel=1e-12)
    assert lookup("CAN", "quebec").g_per_kwh < lookup("CAN").g_per_kwh / 10


@pytest.mark.parametrize("country", countries_with_regions())
def test_every_offered_region_can_be_looked_up(country: str) -> None:
    """All the choices of an error message are accepted."""
    with pytest.raises(UnknownRegion) as caught:
        lookup(country, "nowhere at all")
    assert caught.value.choices
    for name in caught.value.choices:
        assert math.isfinite(lookup(country, name).g_per_kwh)


def test_an_unknown_region_names_the_choices() -> None:
    """A misspelt region names the near one, a country without regions those that have some."""
    with pytest.raises(UnknownRegion, match="did you mean california"):
        lookup("USA", "Californa")
    with pytest.raises(UnknownRegion, match="only for CAN, CHN, FIN, NOR, SWE, USA"):
        lookup("ESP", "Cantabria")
    with pytest.raises(UnknownRegion, match="needs a country"):
        lookup(None, "Cantabria")


def test_a_fixed_intensity_replaces_the_table_and_says_so() -> None:
    """A configured figure is used as it is, zero included, and the country is kept."""
    fixed = lookup("ESP", fixed=12.5)
    assert (fixed.g_per_kwh, fixed.source) == (12.5, "fixed by configuration")
    assert (fixed.country, fixed.country_name, fixed.year) == ("ESP", "Spain", None)
    assert lookup(None, fixed=0).g_per_kwh == 0.0
    assert lookup(None, fixed=0).country is None


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, True, "12"])
def test_a_fixed_intensity_is_a_finite_number_of_at_least_zero(value: float) -> None:
    """Anything else is refused with the value."""
    with pytest.raises(InvalidIntensity, match=str(value)):
        lookup("ESP", fixed=value)


def test_a_fixed_intensity_does_not_hide_a_wrong_country() -> None:
    """The country is checked all the same: it is shown beside the figure."""
    with pytest.raises(UnknownCountry):
        lookup("ES", fixed=12.5)


def test_a_country_needs_the_data_file_only() -> None:
    """Looking up a country does not import codecarbon, which takes 0.3 s and sets up logging."""
    script = """
import sys
from fedserver_hooks.intensity import lookup
lookup("ESP"), lookup(None)
assert "codecarbon" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_codecarbon_the_error_says_what_is_missing() -> None:
    """Tables that are not installed are an error of ours; a fixed intensity needs none."""
    script = """
import sys
sys.modules["codecarbon"] = None
from fedserver_hooks.intensity import IntensityTablesMissing, lookup
assert lookup(None, fixed=3).g_per_kwh == 3
for place in ("ESP",), (None,), ("USA", "texas"):
    try:
        lookup(*place)
    except IntensityTablesMissing as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("codecarbon is not installed") == 3
