"""The clients' learning: a softmax regression over points around three centres, in NumPy."""

from __future__ import annotations

import numpy as np

CLASSES = 3
FEATURES = 8


def load(partition: int, points: int = 600):
    """This partition's points and their classes, the last sixth of them held out."""
    centres = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))
    own = np.random.default_rng(partition + 1)
    labels = own.integers(0, CLASSES, points)
    values = centres[labels] + own.normal(scale=0.8, size=(points, FEATURES))
    cut = points * 5 // 6
    return (values[:cut], labels[:cut]), (values[cut:], labels[cut:])


def new_model():
    """Weights and biases to start from."""
    return [np.zeros((FEATURES, CLASSES), np.float32), np.zeros(CLASSES, np.float32)]


def train(layers, values, labels, epochs: int, rate: float = 0.05):
    """The model after so many steps of gradient descent over all points."""
    weights, biases = layers
    wanted = np.eye(CLASSES)[labels]
    for _ in range(epochs):
        error = (_probabilities((weights, biases), values) - wanted) / len(values)
        weights = weights - rate * values.T @ error
        biases = biases - rate * error.sum(axis=0)
    return [weights.astype(np.float32), biases.astype(np.float32)]


def evaluate(layers, values, labels):
    """Cross entropy and accuracy."""
    found = _probabilities(layers, values)
    loss = -np.log(found[np.arange(len(labels)), labels] + 1e-12).mean()
    return float(loss), float((found.argmax(axis=1) == labels).mean())


def _probabilities(layers, values):
    scores = values @ layers[0] + layers[1]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)
