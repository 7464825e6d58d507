"""Clipping and noise: Flower's arithmetic where Flower's works, and an answer where it does not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.supercore.differential_privacy import (
    add_gaussian_noise_inplace,
    compute_clip_model_update,
)
from hypothesis import given
from hypothesis import strategies as st

from fedserver.privacy.clipping import clipped, noised, update_norm

SHAPES = ((3, 2), (7,), (), (0,))


def layers(seed: int, scale: float, dtype: Any = np.float32) -> list[Any]:
    """Layers of ordinary shapes, an empty one among them."""
    draws = np.random.default_rng(seed)
    return [np.asarray(draws.normal(0, scale, shape)).astype(dtype) for shape in SHAPES]


def length(received: list[Any], sent: list[Any]) -> float:
    """L2 norm of the update in float64."""
    steps = [
        a.astype(np.float64) - b.astype(np.float64) for a, b in zip(received, sent, strict=True)
    ]
    return math.sqrt(sum(float((step**2).sum()) for step in steps))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("norm", [1e-3, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("size", [10, 100_000])
def test_clipping_is_flowers_bit_for_bit(dtype: Any, norm: float, size: int) -> None:
    """For updates longer and shorter than the norm, in both ordinary types."""
    for seed in range(5):
        draws = np.random.default_rng(seed)
        sent = [draws.normal(size=(size,)).astype(dtype), draws.normal(size=(3, 4)).astype(dtype)]
        received = [layer + draws.normal(0, 0.1, layer.shape).astype(dtype) for layer in sent]
        theirs = [layer.copy() for layer in received]
        compute_clip_model_update(theirs, sent, norm)
        ours = clipped(received, sent, norm)
        assert [layer.tobytes() for layer in ours] == [layer.tobytes() for layer in theirs]
        assert [layer.dtype for layer in ours] == [layer.dtype for layer in theirs]


@given(seed=st.integers(0, 99), scale=st.floats(1e-6, 1e6), norm=st.floats(1e-6, 1e6))
def test_no_update_is_longer_than_the_norm(seed: int, scale: float, norm: float) -> None:
    """Whatever the sizes; one that is short enough is not made shorter."""
    sent = [np.zeros(shape) for shape in SHAPES]
    received = layers(seed, scale, np.float64)
    before, after = length(received, sent), length(clipped(received, sent, norm), sent)
    assert after <= norm * (1 + 1e-9)
    assert after == pytest.approx(min(before, norm), rel=1e-9)


def test_an_update_of_zeros_stays_one() -> None:
    """Flower's helper divides by zero there."""
    sent = layers(1, 1.0)
    with pytest.raises(ZeroDivisionError):
        compute_clip_model_update([layer.copy() for layer in sent], sent, 0.5)
    ours = clipped(sent, sent, 0.5)
    assert [layer.tobytes() for layer in ours] == [layer.tobytes() for layer in sent]


@pytest.mark.parametrize(
    ("received", "dtype"),
    [(300.0, np.float16), (1e25, np.float32), (1e-30, np.float32)],
    ids=["float16", "float32-large", "float32-small"],
)
def test_a_norm_that_the_type_cannot_hold_is_still_exact(received: float, dtype: Any) -> None:
    """Its squares overflow or vanish in the layer's own type."""
    update = [np.full(4, received, dtype)]
    assert update_norm(update) == pytest.approx(2 * float(update[0][0]), rel=1e-6)
    sent = [np.zeros(4, dtype)]
    # In float16, 0.5 is exact and 300 × (1/600 as float16) is not quite.
    limit = 1.0 if received > 1 else 1e-31
    assert length(clipped(update, sent, limit), sent) == pytest.approx(limit, rel=1e-3)


def test_an_update_beyond_all_numbers_counts_as_none() -> None:
    """It cannot be scaled; what was sent comes back, and no NaN."""
    sent: list[Any] = [np.full(3, -6e4, np.float16), np.ones(2, np.float32)]
    received: list[Any] = [np.full(3, 6e4, np.float16), np.full(2, 2.0, np.float32)]
    ours = clipped(received, sent, 1.0)
    assert [layer.tolist() for layer in ours] == [layer.tolist() for layer in sent]
    sent[0][0] = 0
    assert ours[0][0] == np.float16(-6e4)  # a copy


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_is_flowers_bit_for_bit(dtype: Any) -> None:
    """Same seed, same noise, in the layer's type; a single number included."""
    theirs = layers(2, 1.0, dtype)
    np.random.seed(5)
    ours = [noised(layer, 0.3) for layer in theirs]
    np.random.seed(5)
    add_gaussian_noise_inplace(theirs, 0.3)
    assert [layer.tobytes() for layer in ours] == [layer.tobytes() for layer in theirs]
    assert {layer.dtype for layer in ours} == {np.dtype(dtype)}


@pytest.mark.parametrize("stdv", [1e-3, 0.25, 40.0])
def test_the_noise_has_the_standard_deviation_that_was_asked_for(stdv: float) -> None:
    """1,000,000 draws: mean within 5 and deviation within 5 of their standard errors (0.35 %)."""
    count = 1_000_000
    np.random.seed(2026)
    noise = noised(np.zeros(count), stdv)
    assert abs(noise.mean()) < 5 * stdv / math.sqrt(count)
    assert noise.std() == pytest.approx(stdv, rel=5 / math.sqrt(2 * count))
    # Gaussian, not only as wide: shares within one, two and three deviations.
    for deviations, share in ((1, 0.682689), (2, 0.954500), (3, 0.997300)):
        within = float((np.abs(noise) < deviations * stdv).mean())
        assert within == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / count))
