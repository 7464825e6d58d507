"""The search of FedAvgOpt, without the models: a factor for each client from inner products.

Sáinz-Pardo Díaz & López García, 2025, https://arxiv.org/abs/2501.15949. Clients i = 1…C send layers
w_{i,ℓ} and stand for shares s_i of the examples. With a_i = α_i·s_i and w_g,ℓ = Σ_i a_i·w_{i,ℓ},

    f(α) = Σ_j ‖ ( ‖w_g,ℓ − w_{j,ℓ}‖ / ‖w_g,ℓ + w_{j,ℓ}‖ )_ℓ ‖₂

is minimised from α = 1 by Nelder-Mead with SciPy's defaults. The direct formula goes through all
weights in each of the hundreds of evaluations. Here a layer is gone through once, for its products
(`products_of`); an evaluation then costs O(layers × C²), whatever the size of the model.

Clients' weights differ little from one another, so plain products would cancel: the layer's mean c is
taken out, w_i = c + d_i, with p_i = ⟨c, d_i⟩ and K_ij = ⟨d_i, d_j⟩. A client is then a point in C + 1
coordinates: its length along c, ‖c‖ + p_i/‖c‖, and its column of a root of K − ppᵀ/‖c‖². Distances
between such points hold digits that matter in every term, and none is below zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

_BLOCK: Final = 1 << 15
"""Weights a client that are widened to float64 at a time: they stay in the cache."""


@dataclass(frozen=True, slots=True)
class Products:
    """Inner products of L layers among C clients; all that the search needs to know of models."""

    mean: Floats
    """‖c‖², of shape (L,)."""
    cross: Floats
    """⟨c, d_i⟩, of shape (L, C)."""
    gram: Floats
    """⟨d_i, d_j⟩, of shape (L, C, C)."""

    @classmethod
    def of(cls, layers: Iterable[Sequence[NDArray[Any]]]) -> Products:
        """Products of models given layer by layer, each as its C clients' arrays of one shape."""
        made = [products_of(clients) for clients in layers]
        means, crosses, grams = zip(*made, strict=True)
        return cls(np.asarray(means), np.asarray(crosses), np.asarray(grams))


def products_of(clients: Sequence[NDArray[Any]]) -> tuple[float, Floats, Floats]:
    """One layer's ‖c‖², ⟨c, d_i⟩ and ⟨d_i, d_j⟩ in float64, from its C clients' arrays."""
    count = len(clients)
    flat = [np.ravel(values) for values in clients]
    mean, cross, gram = 0.0, np.zeros(count), np.zeros((count, count))
    wide = np.empty((count, min(_BLOCK, flat[0].size)))
    for start in range(0, flat[0].size, _BLOCK):
        block = wide[:, : min(_BLOCK, flat[0].size - start)]
        for row, values in zip(block, flat, strict=True):
            row[:] = values[start : start + _BLOCK]
        centre = block.mean(axis=0)
        block -= centre
        mean += float(centre @ centre)
        cross += block @ centre
        gram += block @ block.T
    return mean, cross, gram


class Objective:
    """f(α) for given products and shares.

    Args:
        products: of L layers and C clients.
        shares: s_i = n_i / N, of shape (C,).
    """

    def __init__(self, products: Products, shares: Floats) -> None:
        points = _points(products)
        layers, _, clients = points.shape
        flat = points.transpose(1, 0, 2).reshape(-1, clients)
        # w_g is linear in α: one product gives its coordinates in every layer.
        self._global = np.ascontiguousarray(flat * shares)
        self._apart = np.concatenate([-flat, flat], axis=1)
        self._coordinates = clients + 1, layers * 2 * clients
        self._squares = layers, 2, clients

    def __call__(self, factors: Floats) -> float:
        """f(α); 0/0 is 0, so a layer that all clients have at zero counts nothing."""
        minus, plus = self.squared_distances(factors)
        if plus.all():
            ratio = minus / plus
        else:
            ratio = np.divide(minus, plus, out=np.full_like(minus, np.inf), where=plus > 0)
            ratio[minus == 0] = 0
        # The ufuncs themselves: methods and `np.sum` take a third of an evaluation's time.
        return float(np.add.reduce(np.sqrt(np.add.reduce(ratio, axis=0))))

    def squared_distances(self, factors: Floats) -> tuple[Floats, Floats]:
        """‖w_g − w_j‖² and ‖w_g + w_j‖², each of shape (L, C), for factors of shape (C,)."""
        apart = self._apart + (self._global @ factors)[:, None]
        apart *= apart
        squares = np.add.reduce(apart.reshape(self._coordinates), axis=0).reshape(self._squares)
        return squares[:, 0], squares[:, 1]


def _points(products: Products) -> Floats:
    """Each layer's C models as points in C + 1 coordinates, of shape (L, C + 1, C).

    They have the models' inner products: along c, and in the root of what is left of K, which keeps
    its own scale where the clients are close together.
    """
    length = np.sqrt(products.mean)[:, None]
    along = np.divide(products.cross, length, out=np.zeros_like(products.cross), where=length > 0)
    rest = products.gram - along[:, :, None] * along[:, None, :]
    values, vectors = np.linalg.eigh(rest)
    # Of clients that hardly differ rounding may leave less than 0.
    across = np.sqrt(np.maximum(values, 0))[:, :, None] * vectors.transpose(0, 2, 1)
    return np.concatenate([across, (along + length)[:, None, :]], axis=1)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to."""

    factors: Floats
    """α*, of shape (C,)."""
    evaluations: int
    converged: bool
    """False where Nelder-Mead used up its 200·C evaluations; the best of them is kept."""


def search(products: Products, shares: Floats) -> Found:
    """Minimise f from α = 1 by Nelder-Mead, SciPy's defaults. Deterministic."""
    start = np.ones(shares.size)
    result = minimize(Objective(products, shares), start, method="Nelder-Mead")
    return Found(np.asarray(result.x), int(result.nfev), bool(result.success))
