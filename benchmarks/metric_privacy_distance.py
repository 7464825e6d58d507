"""The distance of metric privacy beside the one product that it cannot do without.

100 clients × 1,000,000 float32 parameters that lie close together and far from zero, as those of one
training do. ``A @ A.T`` gets them as one matrix, the distance as the list of models that a round has;
both are timed in turn, so that a busy machine slows both down. The answer is compared with the formula
written out in float64.

Target: at most 1.6 times the product (median of 5), relative error at most 1e-6.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedserver.privacy.distance import greatest_distance

CLIENTS = 100
PARAMETERS = 1_000_000
REPETITIONS = 5
MOST_TIMES = 1.6
MOST_ERROR = 1e-6


def fleet() -> NDArray[np.float32]:
    """One model a row."""
    draws = np.random.default_rng(2026)
    base = draws.normal(size=PARAMETERS).astype(np.float32)
    rows = np.empty((CLIENTS, PARAMETERS), np.float32)
    for row in rows:
        row[:] = base + 0.01 * draws.standard_normal(PARAMETERS, np.float32)
    return rows


def reference(rows: NDArray[np.float32]) -> float:
    """Every pair in float64, as the paper has it, some columns at a time."""
    squares = np.zeros((CLIENTS, CLIENTS))
    for start in range(0, PARAMETERS, 10_000):
        some = rows[:, start : start + 10_000].astype(np.float64)
        for one in range(CLIENTS):
            steps = some[:one] - some[one]
            squares[one, :one] += np.einsum("ij,ij->i", steps, steps)
    return float(np.sqrt(squares.max()))


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def main() -> int:
    """Measure, print, and fail if a target is missed."""
    rows = fleet()
    models: list[list[NDArray[Any]]] = [[row.copy()] for row in rows]
    times: dict[str, list[float]] = {"product": [], "distance": []}
    for _ in range(REPETITIONS + 1):  # the first warms up
        times["product"].append(seconds(lambda: rows @ rows.T))
        times["distance"].append(seconds(lambda: greatest_distance(models)))
    product, distance = (statistics.median(taken[1:]) for taken in times.values())
    found, right = greatest_distance(models), reference(rows)
    error = abs(found - right) / right
    print(f"{CLIENTS} clients x {PARAMETERS:,} float32, median of {REPETITIONS}")
    print(f"A @ A.T   {product:.3f} s")
    print(f"distance  {distance:.3f} s, {distance / product:.2f} times (at most {MOST_TIMES})")
    print(f"d = {found:.9g}, relative error {error:.1e} (at most {MOST_ERROR:.0e})")
    return 0 if distance <= MOST_TIMES * product and error <= MOST_ERROR else 1


if __name__ == "__main__":
    sys.exit(main())
