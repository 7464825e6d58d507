"""FedAvgM with the state that outlives a round: its own copy of the model, and the momentum."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvgM

from fedserver.strategies.state import State, StateError, packed, unpacked


class StatefulFedAvgM(FedAvgM):
    """Flower's FedAvgM with a state.

    It does not look at the model that a round sends out, but steps from what it returned last; under
    a privacy mechanism these differ by the noise.
    """

    def state(self) -> State:
        """``current_arrays/<layer>`` and ``momentum_vector/<layer>``, in the shapes of the layers."""
        if not self.server_opt or self.current_arrays is None:
            return {}
        layers = {name: array.numpy() for name, array in self.current_arrays.items()}
        vector = self.momentum_vector
        momentum = None if vector is None else dict(zip(layers, vector, strict=True))
        return packed(current_arrays=layers, momentum_vector=momentum)

    def load_state(self, state: State) -> None:
        """The inverse of `state`."""
        layers, momentum = unpacked(state, "current_arrays", "momentum_vector")
        if momentum is not None and (layers is None or set(momentum) != set(layers)):
            raise StateError("the momentum belongs to other layers than the model")
        self.current_arrays = (
            None
            if layers is None
            else ArrayRecord({name: Array(values) for name, values in layers.items()})
        )
        # In the order of the layers: Flower's list has no names.
        self.momentum_vector = None if momentum is None else [momentum[n] for n in layers or {}]
