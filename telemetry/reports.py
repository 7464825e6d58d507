"""What a client says about one piece of work: the only place where its values are judged.

A report has one required value, ``emissions_kg``. An invalid *optional* value is dropped and noted;
it never rejects the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Annotated, Final

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from telemetry.domain import NonNegative, RejectionReason, Sensor

WIRE_SCHEMA: Final = 1
"""Version of the record that our client helpers send, as its ``schema`` value."""

WIRE_FIELDS: Final[tuple[str, ...]] = (
    "schema",
    "emissions_kg",
    "energy_kwh",
    "cpu_kwh",
    "gpu_kwh",
    "ram_kwh",
    "duration_s",
    "started_at",
    "ended_at",
    "country",
    "carbon_intensity_g_per_kwh",
    "sensor",
    "scope",
    "host_id",
    "client_name",
    "tracker",
)

MAX_INTENSITY_G_PER_KWH: Final = 2_000.0
"""A stated carbon intensity above this is not one: even lignite stays below 1,300 g/kWh."""
BARE_INTENSITY_G_PER_KWH: Final = 1_400.0
"""Upper bound for a report that states no intensity, when its plausibility is judged."""
CONSISTENT_RATIO: Final = (0.5, 3.0)
"""Emissions may be this multiple of energy × intensity: a PUE of up to 3, a coarser table."""
SHORTEST_WINDOW_S: Final = 1.0
"""Shorter windows count as this long when plausibility is judged (clocks, sampling)."""
JOULES_PER_KWH: Final = 3.6e6
_VALUE_CHARACTERS: Final = 64
_ENERGIES: Final = ("energy_kwh", "cpu_kwh", "gpu_kwh", "ram_kwh")
_energies_of: Final = itemgetter(*_ENERGIES)

_Text = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


def _as_time(value: object) -> object:
    """Accept ISO 8601 text with an offset, or epoch seconds; anything else is left to fail."""
    if isinstance(value, str) and len(value) <= _VALUE_CHARACTERS:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            return moment  # refused as not aware
        try:
            return moment.astimezone(UTC)
        except OverflowError as error:  # a time that does not exist in UTC
            raise ValueError("out of range") from error
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (OverflowError, OSError) as error:
            raise ValueError("out of range") from error
    return value


_Time = Annotated[AwareDatetime, BeforeValidator(_as_time)]


class ClientReport(BaseModel):
    """A valid report: finite, not negative, in kg, kWh, seconds and g/kWh."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)

    emissions_kg: NonNegative
    schema_version: Annotated[int | None, Field(alias="schema", ge=1, le=1_000)] = None
    energy_kwh: NonNegative | None = None
    cpu_kwh: NonNegative | None = None
    gpu_kwh: NonNegative | None = None
    ram_kwh: NonNegative | None = None
    duration_s: NonNegative | None = None
    started_at: _Time | None = None
    ended_at: _Time | None = None
    country: Annotated[str | None, Field(pattern=r"^[A-Z]{3}$")] = None
    carbon_intensity_g_per_kwh: Annotated[float | None, Field(ge=0, le=MAX_INTENSITY_G_PER_KWH)] = (
        None
    )
    sensor: Sensor | None = None
    scope: Annotated[str | None, Field(pattern=r"^[a-z-]{1,16}$")] = None
    host_id: Annotated[str | None, Field(pattern=r"^[0-9a-f]{12}$")] = None
    client_name: _Text | None = None
    tracker: _Text | None = None
    dropped_fields: tuple[str, ...] = ()
    """Optional fields that the client sent and that were not valid."""

    def without(self, *names: str) -> ClientReport:
        """The report with these optional fields dropped and noted."""
        return self.model_copy(
            update=dict.fromkeys(names) | {"dropped_fields": (*self.dropped_fields, *names)}
        )


@dataclass(frozen=True, slots=True)
class RejectedReport:
    """A report that does not count: why, and the value as text (at most 64 characters)."""

    reason: RejectionReason
    value: str


def read_report(values: Mapping[str, object]) -> ClientReport | RejectedReport:
    """Judge the values of one report as a client sent them."""
    emissions = values.get("emissions_kg")
    reason = _why_no_amount(emissions)
    if reason is not None:
        return RejectedReport(reason, _as_text(emissions))
    wanted = {name: values[name] for name in WIRE_FIELDS if name in values}
    try:
        return ClientReport.model_validate(wanted)
    except ValidationError as error:
        bad = {str(item["loc"][0]) for item in error.errors(include_url=False)}
    kept = {name: value for name, value in wanted.items() if name not in bad}
    return ClientReport.model_validate(kept | {"dropped_fields": tuple(sorted(bad))})


def plausible(
    report: ClientReport, window_s: float, max_client_power_w: float
) -> ClientReport | RejectedReport:
    """Judge a valid report against what its machine can have used in that time.

    ``window_s`` is how long the client can have worked; ``max_client_power_w`` the most that any
    client draws. An energy beyond that is an invalid optional field.
    """
    longest_s = window_s if window_s > SHORTEST_WINDOW_S else SHORTEST_WINDOW_S
    most_kwh = max_client_power_w * longest_s / JOULES_PER_KWH
    raw = (
        report.__dict__
    )  # fields of a pydantic model: its attribute look-ups take three times as long
    for energy_kwh in _energies_of(raw):
        if energy_kwh is not None and energy_kwh > most_kwh:  # rare, and then which is looked up
            report = report.without(*(n for n in _ENERGIES if (raw[n] or 0.0) > most_kwh))
            raw = report.__dict__
            break
    emissions_kg: float = raw["emissions_kg"]
    intensity: float | None = raw["carbon_intensity_g_per_kwh"]
    bound = BARE_INTENSITY_G_PER_KWH if intensity is None else intensity
    if emissions_kg > most_kwh * bound / 1000.0:
        return RejectedReport("implausible", _as_text(emissions_kg))
    if intensity is not None and _is_inconsistent(emissions_kg, raw["energy_kwh"], intensity):
        return RejectedReport("inconsistent", _as_text(emissions_kg))
    return report


def _is_inconsistent(emissions_kg: float, energy_kwh: float | None, intensity: float) -> bool:
    """Whether energy × intensity (g/kWh) and emissions contradict each other."""
    if energy_kwh is None:
        return False
    product = energy_kwh * intensity / 1000.0
    if product == 0 or emissions_kg == 0:
        return product != emissions_kg
    low, high = CONSISTENT_RATIO
    return not low <= emissions_kg / product <= high


def _why_no_amount(value: object) -> RejectionReason | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not_a_number"
    try:
        number = float(value)
    except OverflowError:
        return "not_finite"
    if not math.isfinite(number):
        return "not_finite"
    return "negative" if number < 0 else None


def _as_text(value: object) -> str:
    """The value for a person to read; bounded before it is formatted, whatever a client sent."""
    match value:
        case None:
            return "nothing"
        case list():
            return f"a list of {len(value)} values"
        case str():
            return value[:_VALUE_CHARACTERS]
        case bytes():
            return repr(value[:_VALUE_CHARACTERS])[:_VALUE_CHARACTERS]
        case int() if abs(value) >= 10**18:
            return "an integer beyond 10^18"
        case _:
            return repr(value)[:_VALUE_CHARACTERS]
