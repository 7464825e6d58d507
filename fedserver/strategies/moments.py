"""FedAdam, FedYogi and FedAdagrad with the state that outlives a round: two moments of the updates."""

from __future__ import annotations

from typing import Any

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedYogi
from numpy.typing import NDArray

from fedserver.strategies.state import State, packed, same_layers, unpacked


class _Moments:
    """State of Flower's adaptive optimisers; the model itself comes anew with each round."""

    m_t: dict[str, NDArray[Any]] | None
    v_t: dict[str, NDArray[Any]] | None

    def state(self) -> State:
        """``m_t/<layer>`` and ``v_t/<layer>``, in the shapes of the layers."""
        return packed(m_t=self.m_t, v_t=self.v_t)

    def load_state(self, state: State) -> None:
        """The inverse of `state`."""
        first, second = unpacked(state, "m_t", "v_t")
        same_layers(state, first, second)
        self.m_t, self.v_t = first, second


class StatefulFedAdam(_Moments, FedAdam):
    """Flower's FedAdam with a state."""


class StatefulFedYogi(_Moments, FedYogi):
    """Flower's FedYogi with a state."""


class StatefulFedAdagrad(_Moments, FedAdagrad):
    """Flower's FedAdagrad with a state."""
