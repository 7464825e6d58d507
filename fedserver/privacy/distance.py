"""The greatest distance between any two of many models.

Distances of all pairs come from one Gram matrix a layer: ‖a − b‖² = a·a + b·b − 2 a·b. Plain products
would cancel where models are close together and far from zero, as those of one training are; so the
mean is taken out first, and the products of blocks are summed in float64. What little error is left
decides at most which pairs are looked at again: their distance is then computed directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Matrix = NDArray[np.float64]

_BLOCK_NUMBERS: Final = 1 << 21
"""Numbers in a block of all models (8 MiB of float32)."""
_SMALLEST_BLOCK: Final = 1 << 10
_ROUNDING: Final = 32.0
"""Bound on the error of a product of blocks, in units of the type's rounding: BLAS adds up in several
partial sums, whose errors grow far slower than their number of terms."""
_MOST_PAIRS: Final = 32
"""Pairs that are computed directly, at most; ordinary models need one or two."""


def greatest_distance(models: Sequence[Sequence[Array]]) -> float:
    """Maximum over pairs of models of the mean over layers of the L2 distance of their layers.

    Args:
        models: the layers of each model, at least two models and one layer, all of the same shapes and
            of finite real numbers; float32 is worked on as float32.

    Returns:
        The distance, to a relative error of about 1e-7; 0 if all models are the same; inf if it is
        beyond float64. Source: Sáinz-Pardo Díaz et al. (2025), arXiv 2502.01352.
    """
    count, layers = len(models), len(models[0])
    if layers == 0:
        return 0.0
    near = np.zeros((count, count))
    margin = np.zeros((count, count))
    for rows in zip(*models, strict=True):
        distance, error = _distances([row.ravel() for row in rows])
        near += distance / layers
        margin += error / layers
    if not np.isfinite(near).all():
        return float("inf")
    pairs = _candidates(near, margin)
    return max(_distance(models[one], models[other]) for one, other in pairs)


def _distances(rows: Sequence[Array]) -> tuple[Matrix, Matrix]:
    """Distances of one layer between all pairs, and how wrong they may be."""
    dtype = np.result_type(np.float32, *{row.dtype for row in rows})
    with np.errstate(over="ignore", invalid="ignore"):
        gram = _gram(rows, dtype)
        if dtype != np.float64 and not np.isfinite(gram).all():  # squares beyond float32
            dtype = np.dtype(np.float64)
            gram = _gram(rows, dtype)
        squares = np.diagonal(gram)
        sums = squares[:, None] + squares[None, :]
        distance = np.sqrt(np.maximum(sums - 2 * gram, 0.0))
        np.fill_diagonal(distance, 0.0)
        wrong = _ROUNDING * float(np.finfo(dtype).eps) * sums
        # |√(s ± e) − √s| is at most √e, and at most e / √s.
        error = np.minimum(np.sqrt(wrong), wrong / np.maximum(distance, np.finfo(float).tiny))
    return distance, error


def _gram(rows: Sequence[Array], dtype: np.dtype[Any]) -> Matrix:
    """Products of all pairs of rows after their mean is taken out, (rows, rows)."""
    count, size = len(rows), rows[0].size
    gram = np.zeros((count, count))
    width = min(size, max(_SMALLEST_BLOCK, _BLOCK_NUMBERS // count))
    shares = np.full(count, 1 / count, dtype)
    block: Array = np.empty((count, width), dtype)
    for start in range(0, size, max(width, 1)):
        end = min(start + width, size)
        if end - start < width:  # the last one: a block of its own, so that it lies in one piece
            block = np.empty((count, end - start), dtype)
        np.concatenate([row[start:end] for row in rows], out=block.reshape(-1), casting="unsafe")
        block -= shares @ block
        gram += block @ block.T
    return gram


def _candidates(near: Matrix, margin: Matrix) -> Iterable[tuple[int, int]]:
    """Pairs that may be the farthest apart, the likeliest first."""
    ones, others = np.triu_indices(len(near), 1)
    near, margin = near[ones, others], margin[ones, others]
    certain = (near - margin).max()
    possible = np.flatnonzero(near + margin >= certain)
    likeliest = possible[np.argsort(-near[possible], kind="stable")][:_MOST_PAIRS]
    return [(int(ones[pair]), int(others[pair])) for pair in likeliest]


def _distance(one: Sequence[Array], other: Sequence[Array]) -> float:
    """The distance of two models in float64, block by block."""
    norms = []
    with np.errstate(over="ignore"):
        for a, b in zip(one, other, strict=True):
            total = 0.0
            a, b = a.ravel(), b.ravel()
            for start in range(0, a.size, 1 << 16):
                end = start + (1 << 16)
                step = np.subtract(a[start:end], b[start:end], dtype=np.float64)
                total += float(step @ step)
            norms.append(np.sqrt(total))
    return float(np.mean(norms))
