"""Estimates that stand beside a round's measured figures: pure, and never part of a total."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import quantiles
from typing import Final

from telemetry.domain.parts import Factors, Imputation, ParticipantRecord, ReportRecord
from telemetry.domain.vocabulary import GRAMS_PER_KG

BYTES_PER_GB: Final = 1e9
"""Decimal gigabytes, as the literature on network energy counts them."""
FEWEST_REPORTS_TO_IMPUTE: Final = 3
"""Of fewer reports no percentile says anything about those who are silent."""


def communication_kg(size_bytes: int | None, factors: Factors) -> float | None:
    """Emissions of transferring so many bytes, kg CO2eq: allocated, estimated.

    At the server's carbon intensity, for nobody knows where the network drew its power; without PUE,
    which is the data centre's. None where the bytes or the factor are unknown.
    """
    if size_bytes is None or factors.network_kwh_per_gb is None:
        return None
    energy_kwh = size_bytes / BYTES_PER_GB * factors.network_kwh_per_gb
    return energy_kwh * factors.server_carbon_intensity_g_per_kwh / GRAMS_PER_KG


def impute(
    participants: Iterable[ParticipantRecord], accepted: Iterable[ReportRecord]
) -> Imputation | None:
    """What the clients that were to train and did not report may have emitted.

    From the emissions per example of those who did: their median, 10th and 90th percentile
    (`statistics.quantiles`, inclusive) × the examples of the silent. Zero where nobody is silent;
    None with fewer than three reports, or where no silent client's examples are known.
    """
    counted = {
        r.node_id: r.counted_emissions_kg for r in accepted if r.phase == "train" and not r.late
    }
    trained = [p for p in participants if p.train]
    per_example = [
        kg / p.examples
        for p in trained
        if p.examples and (kg := counted.get(p.node_id)) is not None
    ]
    silent = [p for p in trained if p.node_id not in counted]
    if len(per_example) < FEWEST_REPORTS_TO_IMPUTE:
        return None
    known = [p.examples for p in silent if p.examples is not None]
    if silent and not known:
        return None
    low, central, high = _spread(per_example)
    examples = sum(known)
    return Imputation(
        clients=len(known),
        low_kg=low * examples,
        central_kg=central * examples,
        high_kg=high * examples,
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """10th percentile, median, 90th percentile."""
    deciles = quantiles(values, n=10, method="inclusive")
    return deciles[0], deciles[4], deciles[8]
