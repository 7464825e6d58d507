"""FedAvgOpt's aggregation: FedAvg with a searched factor for each client.

Sáinz-Pardo Díaz & López García, 2025, https://arxiv.org/abs/2501.15949.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedserver.strategies.factor_search import Floats, Products, search

logger = logging.getLogger(__name__)


class FactorSearch(FedAvg):
    """w_g = Σ_i α_i·(n_i / N)·w_i with the factors α that `factor_search` finds.

    The factors are one for each client and the same for all layers of floats; they need not add up
    to anything. Integer layers are counters, not weights: they take FedAvg's mean and no part in the
    search. Every layer is read twice, however long the search is. Remembers nothing.
    """

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The model in the types that the clients sent, or ``(None, None)`` without replies."""
        kept = list(replies)
        mean, metrics = super().aggregate_train(server_round, kept)
        if mean is None:
            return None, metrics
        contents = [reply.content for reply in kept if reply.has_content()]
        models = [next(iter(content.array_records.values())) for content in contents]
        examples = [
            next(iter(content.metric_records.values()))[self.weighted_by_key]
            for content in contents
        ]
        shares = np.asarray(examples, np.float64)
        shares /= shares.sum()
        names = [name for name, array in models[0].items() if array.numpy().dtype.kind == "f"]
        if names:
            weights = shares * self._factors(models, names, shares)
            for name, values in zip(names, _layers(models, names), strict=True):
                mean[name] = Array(combined(values, weights))
        return mean, metrics

    def _factors(
        self, models: Sequence[ArrayRecord], names: Sequence[str], shares: Floats
    ) -> Floats:
        found = search(Products.of(_layers(models, names)), shares)
        logger.debug("FedAvgOpt: %d evaluations, factors %s", found.evaluations, found.factors)
        if not found.converged:
            logger.info(
                "FedAvgOpt: the search for %d factors ended at its limit of %d evaluations; the "
                "best of them are taken",
                found.factors.size,
                found.evaluations,
            )
        return found.factors


def _layers(models: Sequence[ArrayRecord], names: Sequence[str]) -> Iterator[list[NDArray[Any]]]:
    """One layer after the other, each as its clients' arrays; one is held at a time."""
    for name in names:
        yield [model[name].numpy() for model in models]


def combined(clients: Sequence[NDArray[Any]], weights: Floats) -> NDArray[Any]:
    """Σ_i weights_i · w_i, summed in float64, in the first array's shape and type."""
    total = np.zeros(clients[0].shape)
    for values, weight in zip(clients, weights, strict=True):
        total += weight * values.astype(np.float64)
    return np.asarray(total.astype(clients[0].dtype))
