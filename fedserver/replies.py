"""What is wrong with a client's reply, in plain words, and what its optional metrics come to.

Flower checks little: a NaN reaches the model, a shape that broadcasts is added up, a reply with
other metrics than the rest ends the run. These are the checks of the guard, without its side effects.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

EXAMPLES_KEY: Final = "num-examples"
ARRAYS_KEY: Final = "arrays"
MAX_OPTIONAL_METRICS: Final = 32
"""Names of optional metrics that are kept in a round; the first in alphabetical order."""
_READING_ERRORS: Final = (ValueError, TypeError, EOFError, OSError, MemoryError, OverflowError)
"""What NumPy raises for bytes that are no array."""
_NUMBERS: Final = "biuf"
"""NumPy kinds that can be averaged into a model of real numbers."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Shape and type of one layer as it was sent out."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, array: Array) -> Layer:
        """Read from the record's fields, or from its bytes where these are empty."""
        if array.dtype:
            return cls(tuple(array.shape), np.dtype(array.dtype))
        values = array.numpy()
        return cls(values.shape, values.dtype)


Layers = Mapping[str, Layer]


def layers_of(arrays: ArrayRecord) -> dict[str, Layer]:
    """Shapes and types of a model, in its order."""
    return {name: Layer.of(array) for name, array in arrays.items()}


@dataclass(frozen=True, slots=True)
class Weighted:
    """The numbers of one reply and the examples that they stand for."""

    examples: int
    values: Mapping[str, float]


# --- replies to train messages -------------------------------------------------------------------


def problem_with_update(
    content: RecordDict, layers: Layers, needs_metrics: Iterable[str]
) -> str | None:
    """Why this update cannot be aggregated into a model of these layers; None if it can."""
    arrays = [record for record in content.values() if type(record) is ArrayRecord]
    metrics = [record for record in content.values() if type(record) is MetricRecord]
    if len(arrays) != 1 or len(metrics) != 1:
        return f"{len(arrays)} models and {len(metrics)} sets of metrics instead of one of each"
    return (
        problem_with_examples(metrics[0])
        or _problem_with_needed(metrics[0], needs_metrics)
        or _problem_with_names(arrays[0], layers)
        or _first(_problem_with_layer(name, arrays[0][name], layers[name]) for name in layers)
    )


def problem_with_examples(metrics: MetricRecord) -> str | None:
    """Why a reply has no weight: the number of examples must be a positive integer."""
    if EXAMPLES_KEY not in metrics:
        return f"no {EXAMPLES_KEY}"
    examples = metrics[EXAMPLES_KEY]
    if not isinstance(examples, int) or examples <= 0:
        return f"{EXAMPLES_KEY} is {_short(examples)}, not a positive integer"
    return None


def _problem_with_needed(metrics: MetricRecord, needed: Iterable[str]) -> str | None:
    for name in sorted(needed):
        loss = _finite(metrics.get(name))
        if loss is None:
            sent = f"is {_short(metrics[name])}" if name in metrics else "is missing"
            return f"the strategy needs the metric {name}, which {sent}"
        if loss < 0:
            return f"the strategy needs the loss {name}, which is below 0: {loss:g}"
    return None


def arranged(content: RecordDict, layers: Layers) -> None:
    """Bring a good update's layers into the order that was sent, under one key for all replies.

    Some strategies pair layers by position, and Flower ends a round whose replies have other keys.
    The record is replaced, not changed.
    """
    ((key, arrays),) = content.array_records.items()
    if key != ARRAYS_KEY or list(arrays) != list(layers):
        del content[key]
        content[ARRAYS_KEY] = ArrayRecord({name: arrays[name] for name in layers})


def _problem_with_names(arrays: ArrayRecord, layers: Layers) -> str | None:
    if len(arrays) != len(layers):
        return f"{len(arrays)} layers instead of {len(layers)}"
    if missing := [name for name in layers if name not in arrays]:
        return f"other names of layers than were sent: {_short(missing[0])} is missing"
    return None


def _problem_with_layer(name: str, array: Array, layer: Layer) -> str | None:
    where = f"layer {_short(name)}"
    try:
        values = array.numpy()
    except _READING_ERRORS:
        return f"{where} cannot be read"
    if values.shape != layer.shape:
        broadcasts = " (it would broadcast)" if _broadcasts(values.shape, layer.shape) else ""
        return f"{where} has shape {values.shape} instead of {layer.shape}{broadcasts}"
    if values.dtype.kind not in _NUMBERS:
        return f"{where} holds {values.dtype}, not numbers"
    if not np.isfinite(values).all():
        return f"{where} holds NaN or infinity"
    if not _fits(values, layer.dtype):
        return f"{where} holds values too large for {layer.dtype}"
    return None


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _fits(values: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """Whether finite values stay finite in the model's type."""
    if values.dtype == dtype or not values.size or dtype.kind not in _NUMBERS:
        return True
    if dtype.kind == "b":
        return True
    limits: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    return bool(values.max() <= limits.max and values.min() >= limits.min)


# --- what was aggregated -------------------------------------------------------------------------


def problem_with_model(arrays: ArrayRecord, layers: Layers) -> str | None:
    """Why what a strategy returned is no next model."""
    if len(arrays) != len(layers):
        return f"the strategy returned {len(arrays)} layers instead of {len(layers)}"
    for name, array in named(arrays, layers).items():
        values = array.numpy()
        if values.shape != layers[name].shape:
            return f"the strategy returned layer {name} with shape {values.shape}"
        if not np.isfinite(values).all() or not _fits(values, layers[name].dtype):
            return f"the strategy returned layer {name} with NaN, infinity or too large values"
    return None


def named(arrays: ArrayRecord, layers: Layers) -> dict[str, Array]:
    """Layers under the names and in the order of ``layers``.

    By name where the names are those that were sent, else by position.
    """
    if set(arrays) == set(layers):
        return {name: arrays[name] for name in layers}
    return dict(zip(layers, arrays.values(), strict=True))


def restored(arrays: ArrayRecord, layers: Layers) -> ArrayRecord:
    """The aggregate with the names, order and types that were sent.

    Types matter: a float64 model is twice the traffic, and a counter that became a mean is no
    counter. The very same record if nothing differs; never changed in place, because some strategies
    keep what they return.
    """
    layer_arrays = named(arrays, layers)
    cast = {name: _cast(array, layers[name].dtype) for name, array in layer_arrays.items()}
    if list(arrays) == list(cast) and all(arrays[name] is cast[name] for name in cast):
        return arrays
    return ArrayRecord(cast)


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    if array.dtype == str(dtype):
        return array
    values = array.numpy()
    if values.dtype == dtype:
        return array
    if dtype.kind in "biu" and values.dtype.kind == "f":
        values = np.rint(values)
    return Array(np.asarray(values.astype(dtype)))


# --- optional metrics ----------------------------------------------------------------------------


def numbers_of(metrics: MetricRecord) -> Weighted:
    """The finite numbers of a reply whose examples are known to be good."""
    examples = metrics[EXAMPLES_KEY]
    assert isinstance(examples, int)
    found = {name: _finite(value) for name, value in metrics.items() if name != EXAMPLES_KEY}
    return Weighted(examples, {name: value for name, value in found.items() if value is not None})


def weighted_means(
    replies: Iterable[Weighted], wanted: Collection[str] = ()
) -> tuple[dict[str, float], dict[str, int]]:
    """Means weighted by examples, each over the replies that have the number, and how many have.

    Of too many names those in ``wanted`` are kept first: no client can push them out.
    """
    columns: dict[str, list[tuple[int, float]]] = {}
    for reply in replies:
        for name, value in reply.values.items():
            columns.setdefault(name, []).append((reply.examples, value))
    first = sorted(columns, key=lambda name: (name not in wanted, name))
    kept = sorted(first[:MAX_OPTIONAL_METRICS])
    means = {name: _mean(columns[name]) for name in kept}
    return means, {name: len(columns[name]) for name in kept}


def _mean(column: list[tuple[int, float]]) -> float:
    # Shares first, and of halves: sums would leave the range of floats, where the mean does not.
    total = sum(weight for weight, _ in column)
    mean = math.fsum(weight / total * (value / 2) for weight, value in column) * 2
    lowest, highest = min(value for _, value in column), max(value for _, value in column)
    return min(max(mean, lowest), highest)


def _finite(value: object) -> float | None:
    """A single finite number as a float, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _first(problems: Iterable[str | None]) -> str | None:
    return next((problem for problem in problems if problem is not None), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
