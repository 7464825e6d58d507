"""Clips a client's update, and adds noise to what was aggregated.

Both mechanisms share this. Layers that are not floating point (counters, flags) are left as they are.

The arithmetic is that of Flower's `clip_inputs_inplace` and `add_gaussian_noise_inplace`, step for
step, so that results are bit for bit the same on ordinary input; what differs are the cases in which
Flower's fails: an update of zeros, whole numbers, single numbers (0-d), and norms that a layer's own
type cannot hold, such as that of a float32 layer of ten million numbers, which is 5e-5 wrong there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NORM_AGREES: Final = 1e-5
"""Relative difference up to which a norm in the layers' own type is taken for the exact one; an
update may then be longer than the clipping norm by this much, which no epsilon can tell."""
_BLOCK: Final = 1 << 16
"""Numbers that are converted to float64 at a time: they stay in the processor's cache."""


def is_protected(dtype: np.dtype[Any]) -> bool:
    """Whether layers of this type are clipped and get noise."""
    return dtype.kind == "f"


def clipped(received: Sequence[Array], sent: Sequence[Array], clipping_norm: float) -> list[Array]:
    """A client's model with its update no longer than ``clipping_norm`` (L2, over all layers).

    Args:
        received: the client's floating-point layers; finite numbers.
        sent: the same layers as they were sent out, in the same order and shapes.
        clipping_norm: greatest length of ``received - sent``, above 0.

    Returns:
        ``sent`` plus the update, scaled if it is too long. An update of zeros stays one, and an update
        too long for any number counts as one: it cannot be scaled, only left out.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        update = [np.subtract(a, b) for a, b in zip(received, sent, strict=True)]
    norm = update_norm(update)
    if not math.isfinite(norm):
        return [np.array(layer) for layer in sent]
    if norm > clipping_norm:
        scale = clipping_norm / norm
        update = [layer * scale for layer in update]
    return [np.asarray(layer + step) for layer, step in zip(sent, update, strict=True)]


def update_norm(update: Sequence[Array]) -> float:
    """L2 norm over all layers, exact to 1e-5; inf or NaN if a number is not finite.

    Where Flower's own norm, which is computed in the layers' types, is right, it is that very number.
    """
    exact = math.sqrt(math.fsum(_sum_of_squares(layer) for layer in update))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        norms = [np.linalg.norm(layer.ravel()) for layer in update]
        usual = float(np.sqrt(sum(norm**2 for norm in norms)))
    return usual if abs(usual - exact) <= _NORM_AGREES * exact else exact


def _sum_of_squares(layer: Array) -> float:
    flat = layer.ravel()
    total = 0.0
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            total += float(block @ block)
    return total


def noised(layer: Array, stdv: float) -> Array:
    """A layer plus Gaussian noise of that standard deviation on each number, in the layer's type.

    Draws from NumPy's global generator, as Flower's wrapper does: ``seed`` decides the noise.
    """
    noise = np.asarray(np.random.normal(0, stdv, layer.shape)).astype(layer.dtype)
    return np.asarray(layer + noise)
