"""FedAvgOpt's search through inner products against the direct formula on the models.

Ten clients, 1,000,000 float32 parameters in ten layers. The direct side is the formula as it stands in
the paper, in float64, layer by layer, the layers widened beforehand; its time is the median of one
evaluation × the evaluations that its Nelder-Mead needs, which are those of ours: both take the same
path (tests/fedserver/test_fedavgopt.py). Our side is products and search together, from the float32
arrays. Both are timed by turns, so that what else the machine does falls on both.

Target: at least 400 times as fast.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedserver.strategies.factor_search import Objective, Products, search

CLIENTS = 10
LAYERS = 10
PARAMETERS = 1_000_000
REPETITIONS = 9
LEAST = 400.0

Floats = NDArray[np.float64]


def models(seed: int = 0) -> list[list[NDArray[Any]]]:
    """Layers, each as its clients' arrays: a common model and what each client made of it."""
    rng = np.random.default_rng(seed)
    size = PARAMETERS // LAYERS
    layers = []
    for _ in range(LAYERS):
        common = rng.normal(size=size)
        layers.append(
            [(common + 0.3 * rng.normal(size=size)).astype(np.float32) for _ in range(CLIENTS)]
        )
    return layers


def direct(layers: list[list[Floats]], shares: Floats, factors: Floats) -> float:
    """f(α) as it is written down."""
    squares = np.zeros(shares.size)
    weights = factors * shares
    for clients in layers:
        total = np.zeros_like(clients[0])
        for weight, values in zip(weights, clients, strict=True):
            total += weight * values
        for j, values in enumerate(clients):
            apart = np.linalg.norm(total - values) / np.linalg.norm(total + values)
            squares[j] += apart * apart
    return float(np.sqrt(squares).sum())


def main() -> int:
    """Print both times and their ratio; 1 if the target is missed."""
    narrow = models()
    wide = [[values.astype(np.float64) for values in clients] for clients in narrow]
    shares = np.linspace(1, 3, CLIENTS)
    shares /= shares.sum()
    found = search(Products.of(narrow), shares)  # also warms up
    agree = abs(
        Objective(Products.of(narrow), shares)(found.factors) / direct(wide, shares, found.factors)
        - 1
    )
    assert agree < 1e-9, "both sides must compute the same thing"
    ours, evaluation = [], []
    for _ in range(REPETITIONS):
        begin = time.perf_counter()
        search(Products.of(narrow), shares)
        between = time.perf_counter()
        direct(wide, shares, found.factors)
        ours.append(between - begin)
        evaluation.append(time.perf_counter() - between)
    fast = statistics.median(ours)
    slow = statistics.median(evaluation) * found.evaluations
    ratio = slow / fast
    print(
        f"{CLIENTS} clients, {PARAMETERS:,} parameters, {LAYERS} layers, {found.evaluations} evaluations"
    )
    print(f"ours   {fast * 1e3:9.1f} ms, products and search")
    print(
        f"direct {slow * 1e3:9.1f} ms, extrapolated from {statistics.median(evaluation) * 1e3:.1f} ms"
    )
    print(f"ratio  {ratio:9.0f}     at least {LEAST:.0f}: {'ok' if ratio >= LEAST else 'MISSED'}")
    return int(ratio < LEAST)


if __name__ == "__main__":
    sys.exit(main())
