"""What a strategy remembers from one round to the next, as plain numbers.

A training goes on in another process bit for bit only with it (and with the model and the states of
``random`` and ``numpy.random``): FedAdam without its moments is another training.

    saved = state_of(strategy)          # after a round
    load_state_of(new_strategy, saved)  # before the next one
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

State: TypeAlias = Mapping[str, NDArray[Any] | int | float | str]
"""Name → array or scalar; nothing that would need a pickle. Arrays of one kind share a prefix:
``m_t/<layer>``. They are the strategy's own, not copies: write them out before the next round, and do
not change them."""


class StateError(ValueError):
    """A state does not belong to this strategy; says what is missing or too much."""


@runtime_checkable
class Stateful(Protocol):
    """A strategy that remembers something."""

    def state(self) -> State:
        """Everything that later rounds depend on; empty before the first round."""

    def load_state(self, state: State) -> None:
        """Take over what another object of the same strategy and options gave.

        An empty state is that of a new object. Raises `StateError`.
        """


def state_of(strategy: object) -> State:
    """A strategy's state; empty for one that remembers nothing."""
    return strategy.state() if isinstance(strategy, Stateful) else {}


def load_state_of(strategy: object, state: State) -> None:
    """Give a new strategy the state of an old one. Raises `StateError` if it is not its own."""
    if isinstance(strategy, Stateful):
        strategy.load_state(state)
    elif state:
        raise StateError(f"{type(strategy).__name__} has no state, but {_some(state)} is given")


def packed(**groups: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
    """Groups of named layers as one mapping; a group that is None is left out.

    0-d layers become arrays: NumPy hands out scalars for what is computed with them.
    """
    return {
        f"{group}/{name}": np.asarray(values)
        for group, layers in groups.items()
        for name, values in (layers or {}).items()
    }


def unpacked(state: State, *groups: str) -> list[dict[str, NDArray[Any]] | None]:
    """The inverse of `packed`: these groups in order, None for one that is not there.

    Raises `StateError` for anything else in ``state``.
    """
    found: dict[str, dict[str, NDArray[Any]]] = {}
    for key, values in state.items():
        group, slash, name = key.partition("/")
        if not slash or group not in groups or not isinstance(values, np.ndarray):
            raise StateError(f"{key!r} is no part of this strategy's state ({', '.join(groups)})")
        found.setdefault(group, {})[name] = values
    return [found.get(group) for group in groups]


def same_layers(state: State, *groups: Mapping[str, object] | None) -> None:
    """Raise `StateError` unless all groups are there with the same layers, or none is."""
    if len({None if group is None else tuple(group) for group in groups}) > 1:
        raise StateError(f"the state is not whole: {_some(state)}")


def _some(names: Iterable[str]) -> str:
    kept = sorted(names)
    return ", ".join(kept[:4]) + (", …" if len(kept) > 4 else "")
