"""FedAvgOpt's search sees inner products only, and finds what the formula on the models finds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from scipy.optimize import minimize

from benchmarks.fedavgopt import direct
from fedserver.options import ClientsConfig
from fedserver.strategies.factor_search import Objective, Products, search
from fedserver.strategies.factors import combined
from fedserver.strategies.fedavgopt import FedAvgOptConfig
from tests.fedserver.fakes import ask, update, values_of


def layers_of(
    clients: int, sizes: tuple[int, ...] = (40, 7, 300), spread: float = 0.3, seed: int = 0
) -> list[list[Any]]:
    """Layers, each as its clients' arrays: a common model and what each client made of it."""
    rng = np.random.default_rng(seed)
    return [
        [common + spread * rng.normal(size=size) for _ in range(clients)]
        for size in sizes
        for common in [rng.normal(size=size)]
    ]


def shares_of(clients: int) -> Any:
    """Unequal shares that add up to 1."""
    examples = np.arange(1.0, clients + 1)
    return examples / examples.sum()


@pytest.mark.parametrize("spread", [1e-3, 0.05, 0.3, 3.0])
@pytest.mark.parametrize("clients", [2, 3, 5, 10])
def test_the_factors_are_those_of_the_direct_formula(clients: int, spread: float) -> None:
    """The same α to 1e-6, also where clients are so close that plain inner products cancel."""
    layers, shares = layers_of(clients, spread=spread), shares_of(clients)
    theirs = minimize(
        lambda factors: direct(layers, shares, factors), np.ones(clients), method="Nelder-Mead"
    )
    ours = search(Products.of(layers), shares)
    np.testing.assert_allclose(ours.factors, theirs.x, rtol=0, atol=1e-6)
    assert ours.evaluations == theirs.nfev
    assert ours.converged == theirs.success


@pytest.mark.parametrize("spread", [1e-6, 1e-3, 0.3, 30.0])
def test_one_evaluation_is_the_formula(spread: float) -> None:
    """To ten digits for any factors, whatever part the clients have in common."""
    layers, shares = layers_of(6, spread=spread), shares_of(6)
    objective = Objective(Products.of(layers), shares)
    rng = np.random.default_rng(1)
    for factors in (np.ones(6), rng.normal(1, 0.2, 6), rng.normal(size=6), np.zeros(6)):
        assert objective(factors) == pytest.approx(direct(layers, shares, factors), rel=1e-10)


def test_the_found_factors_are_better_than_none() -> None:
    """f(α*) is below f(1): that is what the strategy is for."""
    layers, shares = layers_of(5, spread=1.0), shares_of(5)
    objective = Objective(Products.of(layers), shares)
    assert objective(search(Products.of(layers), shares).factors) < 0.99 * objective(np.ones(5))


@pytest.mark.parametrize("times", [10, 1000])
def test_the_search_does_not_grow_with_the_model(times: int) -> None:
    """A model that many times as large: as many evaluations, on as many numbers, to the same α."""
    small = layers_of(4)
    large = [[np.tile(values, times) for values in clients] for clients in small]
    products = [Products.of(layers) for layers in (small, large)]
    found = [search(product, shares_of(4)) for product in products]
    assert found[0].evaluations == found[1].evaluations
    np.testing.assert_allclose(found[0].factors, found[1].factors, atol=1e-6)
    for part in ("mean", "cross", "gram"):
        assert getattr(products[0], part).shape == getattr(products[1], part).shape


class CountedArray(Array):
    """A layer that counts how often its numbers are read."""

    reads = 0

    def numpy(self) -> Any:
        """Flower's, counted."""
        type(self).reads += 1
        return super().numpy()


def test_layers_are_read_a_fixed_number_of_times() -> None:
    """However many evaluations a search takes, each layer of each client is read as often."""
    counts = []
    for spread in (1e-9, 0.5):  # a short search, and a long one
        rng = np.random.default_rng(0)
        common = rng.normal(size=50)
        CountedArray.reads = 0
        aggregate(
            [{"w": common + spread * rng.normal(size=50)} for _ in range(5)], kind=CountedArray
        )
        counts.append(CountedArray.reads)
    assert counts[0] == counts[1] <= 4 * 5


def test_zero_and_empty_layers_are_no_trouble() -> None:
    """0/0 is 0: a layer that is zero everywhere, or empty, changes no factor."""
    layers, shares = layers_of(3), shares_of(3)
    more = [*layers, [np.zeros(5)] * 3, [np.zeros(0)] * 3]
    plain, with_zeros = search(Products.of(layers), shares), search(Products.of(more), shares)
    np.testing.assert_array_equal(plain.factors, with_zeros.factors)


def test_a_mean_that_is_a_clients_negative_is_no_minimum() -> None:
    """‖w_g + w_j‖ = 0 is infinitely bad, not a crash."""
    layers = [[np.array([1.0, 2.0]), np.array([1.0, 2.0])]]
    objective = Objective(Products.of(layers), np.array([0.5, 0.5]))
    assert objective(np.array([-1.0, -1.0])) == math.inf
    assert objective(np.ones(2)) == 0


def test_equal_clients_stay_as_they_are() -> None:
    """Where all agree the mean is exact already: f(1) = 0, and rounding makes no square negative."""
    same = np.linspace(-1, 1, 1000)
    found = search(Products.of([[same] * 4]), shares_of(4))
    np.testing.assert_allclose(found.factors @ shares_of(4), 1, atol=1e-4)


# --- the strategy -------------------------------------------------------------------------------


def aggregate(
    models: list[dict[str, Any]], examples: list[int] | None = None, kind: type[Array] = Array
) -> ArrayRecord:
    """What the strategy makes of these clients' models."""
    strategy = FedAvgOptConfig().build(ClientsConfig())
    records = [ArrayRecord({name: kind(v) for name, v in layers.items()}) for layers in models]
    replies = [
        Message(update(record, examples=count), reply_to=message)
        for record, count, message in zip(
            records,
            examples or [10] * len(models),
            ask(range(1, len(models) + 1), ArrayRecord()),
            strict=True,
        )
    ]
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    return arrays


def test_the_aggregate_is_the_weighted_sum_with_the_factors() -> None:
    """w_g = Σ α_i·(n_i/N)·w_i over all layers, in the type that was sent."""
    layers = [[v.astype(np.float32) for v in clients] for clients in layers_of(3)]
    models = [{f"l{i}": clients[j] for i, clients in enumerate(layers)} for j in range(3)]
    arrays = aggregate(models, [10, 20, 30])
    shares = np.array([1, 2, 3]) / 6
    weights = shares * search(Products.of(layers), shares).factors
    for i, clients in enumerate(layers):
        got = arrays[f"l{i}"].numpy()
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, combined(clients, weights))
        np.testing.assert_allclose(
            got, sum(w * v.astype(float) for w, v in zip(weights, clients, strict=True)), rtol=1e-5
        )


def test_counters_take_the_mean_and_no_part_in_the_search() -> None:
    """An integer layer changes no factor, and is averaged by examples."""
    layers = layers_of(2, sizes=(30,))[0]
    plain = aggregate([{"w": layers[0]}, {"w": layers[1]}], [10, 30])
    counted = aggregate(
        [{"w": layers[0], "n": np.array(100)}, {"w": layers[1], "n": np.array(200)}], [10, 30]
    )
    assert values_of(counted)["w"] == values_of(plain)["w"]
    assert counted["n"].numpy() == 175


def test_without_replies_there_is_nothing() -> None:
    """As with FedAvg: no model, and no exception."""
    strategy = FedAvgOptConfig().build(ClientsConfig())
    assert strategy.aggregate_train(1, []) == (None, None)


def test_one_client_is_its_own_aggregate() -> None:
    """Its factor is 1."""
    values = np.linspace(-1, 1, 20)
    np.testing.assert_allclose(aggregate([{"w": values}])["w"].numpy(), values, rtol=1e-4)
