"""A client as the platform's page shows it, tracker included; with a token and without.

    python client.py --server HOST:PORT --partition 0
    python client.py --server HOST:PORT --partition 0 --ca ca.pem --token-file token

Without a token it is Flower's own `start_client`, unchanged. With one it is ours, which takes the same
arguments and `call_credentials` beside them, on the Flower that everybody has.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before flwr is imported
os.environ.setdefault("CODECARBON_TELEMETRY", "disabled")

import flwr as fl
from codecarbon import OfflineEmissionsTracker

from fedserver.demo.digits import DigitsModel, load_partition
from fedserver_hooks.client import BearerToken, start_client, wait_for_port

COUNTRY = "ESP"  # where this client computes


class Client(fl.client.NumPyClient):
    """Trains on this client's digits and measures itself with a tracker of its own."""

    def __init__(self, partition: int) -> None:
        self.data = load_partition(partition, of=2)
        self.model = DigitsModel()

    def get_parameters(self, config):
        """The model to start from."""
        return self.model.weights

    def fit(self, parameters, config):
        """Train; `emissions` (kg CO2eq) among the metrics is all that the server asks for."""
        self.model.weights = [layer.copy() for layer in parameters]
        tracker = OfflineEmissionsTracker(
            country_iso_code=COUNTRY, output_methods=[], log_level="error"
        )
        tracker.start()
        self.model.train(
            self.data.train_images, self.data.train_labels, epochs=240, learning_rate=0.00025
        )
        emissions = tracker.stop()
        return self.model.weights, len(self.data.train_labels), {"emissions": emissions}

    def evaluate(self, parameters, config):
        """Loss and accuracy on digits that were held out."""
        self.model.weights = parameters
        loss, accuracy = self.model.evaluate(self.data.test_images, self.data.test_labels)
        return loss, len(self.data.test_labels), {"accuracy": accuracy}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--partition", type=int, choices=[0, 1], required=True)
    parser.add_argument("--server", default="127.0.0.1:5000")
    parser.add_argument("--ca", type=Path, help="certificate of the server's authority")
    parser.add_argument(
        "--token-file", type=Path, help="the token that the server's owner gave you"
    )
    arguments = parser.parse_args()
    client = Client(arguments.partition)
    root = None if arguments.ca is None else arguments.ca.read_bytes()
    if arguments.token_file is None:
        wait_for_port(
            arguments.server, timeout_s=120
        )  # Flower's start_client does not wait for one
        fl.client.start_client(
            server_address=arguments.server, client=client.to_client(), root_certificates=root
        )
    else:
        start_client(
            server_address=arguments.server,
            client=client,
            root_certificates=root,
            call_credentials=BearerToken(arguments.token_file.read_text()),
        )
