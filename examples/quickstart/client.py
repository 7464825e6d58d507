"""A client for examples/quickstart/server.yaml: python client.py --partition 0 (then 1)."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before flwr is imported

import flwr as fl

from fedserver.demo.digits import DigitsModel, load_partition
from fedserver_hooks.client import track_emissions, wait_for_port, warm_up

COUNTRY = "ESP"  # where this client computes


class Client(fl.client.NumPyClient):
    """Trains a small network on this client's handwritten digits."""

    def __init__(self, partition: int) -> None:
        self.data = load_partition(partition, of=2)
        self.model = DigitsModel()

    def get_parameters(self, config):
        """The model to start from: the server asks one client for it."""
        return self.model.weights

    def fit(self, parameters, config):
        """Train, and tell the server what it took: the two lines with `emissions`."""
        self.model.weights = [layer.copy() for layer in parameters]
        with track_emissions(config, country=COUNTRY) as emissions:
            self.model.train(
                self.data.train_images, self.data.train_labels, epochs=240, learning_rate=0.00025
            )
        return self.model.weights, len(self.data.train_labels), {**emissions}

    def evaluate(self, parameters, config):
        """Loss and accuracy on digits that were held out."""
        self.model.weights = parameters
        loss, accuracy = self.model.evaluate(self.data.test_images, self.data.test_labels)
        return loss, len(self.data.test_labels), {"accuracy": accuracy}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition", type=int, choices=[0, 1], required=True)
    parser.add_argument("--server", default="127.0.0.1:5000")
    arguments = parser.parse_args()
    warm_up()  # the meter takes two seconds to start
    wait_for_port(arguments.server, timeout_s=120)  # Flower's start_client does not wait for one
    fl.client.start_client(
        server_address=arguments.server, client=Client(arguments.partition).to_client()
    )
