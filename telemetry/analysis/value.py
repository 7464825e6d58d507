"""What training progress cost. A *point* is 0.01 of the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from telemetry.domain import GRAMS_PER_KG, RoundSummary

POINT: Final = 0.01
_FALLING: Final = ("loss", "error", "mse", "mae", "perplexity")


def marginal_g_per_point(rounds: Sequence[RoundSummary], value_metric: str) -> float | None:
    """Grams per point of the last of these closed rounds: since the best value before it.

    None where it set no new best, and where the rounds do not begin with the run's first: the best
    may then be among those that are not given.
    """
    if not rounds or min(row.round for row in rounds) > 1:
        return None
    sign = -1.0 if value_metric.lower().endswith(_FALLING) else 1.0
    evaluated = any(value_metric in row.evaluate_metrics for row in rounds)
    steps = [
        ((row.evaluate_metrics if evaluated else row.train_metrics).get(value_metric), row)
        for row in sorted(rounds, key=lambda row: (row.ended_at, row.round))
    ]
    value, last = steps.pop()
    before = [(sign * known, row) for known, row in steps if known is not None]
    if value is None or not before:
        return None
    best, then = max(before, key=lambda step: step[0])
    spent_then, spent_now = then.cumulative_emissions_kg, last.cumulative_emissions_kg
    gained = (sign * value - best) / POINT
    if spent_then is None or spent_now is None or not gained > 0:
        return None
    price = (spent_now - spent_then) * GRAMS_PER_KG / gained
    return price if math.isfinite(price) else None
