"""The model and the data of the demo: handwritten digits, split unevenly among clients.

The data are the 1,797 digits that scikit-learn ships (UCI Optical Recognition of Handwritten Digits,
8 × 8 pixels). Each client holds its own mixture of digits, as hospitals hold their own mixture of
cases: shares are drawn from a Dirichlet distribution (Hsu et al. 2019, arXiv 1909.06335).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

CLASSES = 10
PIXELS = 64
HIDDEN = 256
CONCENTRATION = 0.5
"""Of the Dirichlet distribution: the smaller, the more the clients' mixtures differ."""


@dataclass(frozen=True)
class Partition:
    """One client's digits; rows of 64 pixels in 0…1, labels 0…9."""

    train_images: Floats
    train_labels: Labels
    test_images: Floats
    test_labels: Labels


def load_partition(number: int, of: int = 3, seed: int = 7) -> Partition:
    """The digits of client ``number`` of ``of``: the same for the same arguments, on any machine."""
    if not 0 <= number < of:
        raise ValueError(f"partition {number} of {of}: choose 0 to {of - 1}")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    mine: list[int] = []
    for digit in range(CLASSES):
        places = rng.permutation(np.flatnonzero(labels == digit))
        shares = rng.dirichlet([CONCENTRATION] * of) * 0.85 + 0.15 / of
        cuts = (np.cumsum(shares)[:-1] * len(places)).astype(int)
        mine.extend(np.split(places, cuts)[number])
    order = rng.permutation(np.array(sorted(mine)))
    x, y = (images[order] / 16.0).astype(np.float32), labels[order].astype(np.int64)
    held_out = len(y) // 5
    return Partition(x[held_out:], y[held_out:], x[:held_out], y[:held_out])


class DigitsModel:
    """A network with one hidden layer, in NumPy: 64 pixels → 256 → 10 classes."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.weights: list[Floats] = [
            rng.normal(0, np.sqrt(2 / PIXELS), (PIXELS, HIDDEN)).astype(np.float32),
            np.zeros(HIDDEN, dtype=np.float32),
            rng.normal(0, np.sqrt(2 / HIDDEN), (HIDDEN, CLASSES)).astype(np.float32),
            np.zeros(CLASSES, dtype=np.float32),
        ]

    def train(
        self, images: Floats, labels: Labels, *, epochs: int, learning_rate: float, seed: int = 0
    ) -> None:
        """Plain stochastic gradient descent on cross-entropy, batches of 16."""
        rng = np.random.default_rng(seed)
        for _ in range(epochs):
            order = rng.permutation(len(labels))
            for start in range(0, len(order), 16):
                batch = order[start : start + 16]
                self._step(images[batch], labels[batch], learning_rate)

    def _step(self, images: Floats, labels: Labels, learning_rate: float) -> None:
        hidden, probabilities = self._forward(images)
        error = probabilities
        error[np.arange(len(labels)), labels] -= 1
        error /= len(labels)
        back = (error @ self.weights[2].T) * (hidden > 0)
        for weight, gradient in zip(
            self.weights,
            (images.T @ back, back.sum(0), hidden.T @ error, error.sum(0)),
            strict=True,
        ):
            weight -= np.float32(learning_rate) * gradient

    def _forward(self, images: Floats) -> tuple[Floats, Floats]:
        hidden = np.maximum(images @ self.weights[0] + self.weights[1], 0)
        scores = hidden @ self.weights[2] + self.weights[3]
        scores -= scores.max(axis=1, keepdims=True)
        exponentials = np.exp(scores)
        return hidden, exponentials / exponentials.sum(axis=1, keepdims=True)

    def evaluate(self, images: Floats, labels: Labels) -> tuple[float, float]:
        """Mean cross-entropy and accuracy."""
        _, probabilities = self._forward(images)
        right = probabilities[np.arange(len(labels)), labels]
        loss = float(-np.log(np.maximum(right, 1e-9)).mean())
        return loss, float((probabilities.argmax(axis=1) == labels).mean())
