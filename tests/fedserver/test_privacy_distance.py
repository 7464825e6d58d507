"""The greatest distance of two models, against the formula written out in float64."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedserver.privacy.distance import greatest_distance


def formula(models: list[list[Any]]) -> float:
    """Maximum over pairs of the mean over layers of the L2 norm, as the paper has it."""

    def distance(one: list[Any], other: list[Any]) -> float:
        return float(
            np.mean(
                [
                    np.linalg.norm(a.astype(np.float64).ravel() - b.astype(np.float64).ravel())
                    for a, b in zip(one, other, strict=True)
                ]
            )
        )

    return max(distance(one, other) for one, other in combinations(models, 2))


def fleet(seed: int, clients: int, scale: float = 0.01, dtype: Any = np.float32) -> list[list[Any]]:
    """Models that lie close to one another and far from zero."""
    draws = np.random.default_rng(seed)
    shapes = ((40, 30), (30,), (1,), ())
    base = [100 + 10 * draws.normal(size=shape) for shape in shapes]
    return [
        [np.asarray(b + scale * draws.normal(size=b.shape)).astype(dtype) for b in base]
        for _ in range(clients)
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("clients", [2, 3, 20])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_it_is_the_formulas_to_a_millionth(clients: int, scale: float, dtype: Any) -> None:
    """Close models far from zero included, where plain products would cancel."""
    for seed in range(4):
        models = fleet(seed, clients, scale, dtype)
        assert greatest_distance(models) == pytest.approx(formula(models), rel=1e-6)


def test_several_blocks_are_summed() -> None:
    """A layer of many blocks, and of a last one that is not full."""
    draws = np.random.default_rng(3)
    models = [[draws.normal(size=300_001).astype(np.float32)] for _ in range(16)]
    assert greatest_distance(models) == pytest.approx(formula(models), rel=1e-6)


def test_layers_of_very_different_sizes_do_not_hide_one_another() -> None:
    """The farthest pair is close together in a layer in which the others are far apart.

    In the Gram matrix of that layer its distance is lost in the rounding of the great numbers.
    """
    draws = np.random.default_rng(4)
    much, little = 400 * draws.normal(size=1000), 0.1 * draws.normal(size=1000)
    models = [
        [np.array([first], np.float32), second.astype(np.float32)]
        for first, second in ((0.0, much), (60_000.0, much + little), (30_000.0, -much))
    ]
    assert greatest_distance(models) == pytest.approx(formula(models), rel=1e-6)


def test_models_that_are_all_the_same_have_no_distance() -> None:
    """Exactly 0, although their mean may be rounded."""
    model = fleet(1, 1)[0]
    for clients in (2, 3, 7, 50):
        assert greatest_distance([model] * clients) == 0.0


def test_one_number_that_differs_is_a_distance() -> None:
    """The smallest difference that float32 has."""
    same = np.full(1000, 1.0, np.float32)
    other = same.copy()
    other[7] = np.nextafter(np.float32(1), np.float32(2))
    models = [[same], [same], [other], [same]]
    assert greatest_distance(models) == pytest.approx(2.0**-23, rel=1e-9)


@pytest.mark.parametrize(
    ("value", "dtype"), [(1e25, np.float32), (1e100, np.float64), (6e4, np.float16)]
)
def test_squares_that_the_type_cannot_hold(value: float, dtype: Any) -> None:
    """They are computed in float64."""
    models = [[np.full(4, sign * value, dtype)] for sign in (1, -1, 0)]
    assert greatest_distance(models) == pytest.approx(4 * float(dtype(value)), rel=1e-6)


def test_a_distance_beyond_all_numbers_is_infinite() -> None:
    """Not NaN, and not a small number."""
    models = [[np.full(4, value)] for value in (1e300, -1e300, 0.0)]
    assert greatest_distance(models) == math.inf


def test_empty_layers_count_in_the_mean_and_no_layer_is_no_distance() -> None:
    """The mean is over all layers; without any there is nothing to be apart in."""
    empty = np.zeros((0, 3), np.float32)
    models = [[np.array(xy, np.float32), empty] for xy in ([0, 0], [3, 4])]
    assert greatest_distance(models) == 2.5
    assert greatest_distance([[], []]) == 0.0


@given(
    seed=st.integers(0, 10_000),
    clients=st.integers(2, 8),
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=4),
    decimals=st.integers(-4, 4),
)
def test_any_fleet(seed: int, clients: int, sizes: list[int], decimals: int) -> None:
    """Any shapes and scales, each layer with its own."""
    draws = np.random.default_rng(seed)
    scales = 10.0 ** draws.integers(-3, 4, len(sizes)) * 10.0**decimals
    models = [
        [(draws.normal(size=n) * s).astype(np.float32) for n, s in zip(sizes, scales, strict=True)]
        for _ in range(clients)
    ]
    assert greatest_distance(models) == pytest.approx(formula(models), rel=1e-6, abs=0)
