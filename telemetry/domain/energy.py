"""What energy at the server's meter comes to: the two steps that every figure of it shares."""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum

from telemetry.domain.parts import Factors, Lap
from telemetry.domain.vocabulary import (
    COMPLETE_METERED_SHARE,
    GRAMS_PER_KG,
    LEAST_METERED_SHARE,
)


def metered_part(laps: Iterable[Lap], duration_s: float) -> float:
    """What part of a round the energy of its laps stands for: 1 for a complete one (≥ 99 %).

    1 also where less was metered than could tell anything of the rest (a millionth).
    """
    metered_s = fsum(lap.metered_s for lap in laps)
    if LEAST_METERED_SHARE * duration_s < metered_s < COMPLETE_METERED_SHARE * duration_s:
        return metered_s / duration_s
    return 1.0


def emissions_kg(energy_kwh: float, factors: Factors) -> float:
    """Energy at the server's meter × PUE × carbon intensity, in kg CO2eq."""
    return energy_kwh * factors.pue * factors.server_carbon_intensity_g_per_kwh / GRAMS_PER_KG
