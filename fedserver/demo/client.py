"""The demo's clients: the fleet that a server really meets.

``own-tracker`` measures itself the way the platform's page shows, ``helper`` uses ours, ``silent``
reports nothing. Run as ``python -m fedserver.demo.client --server HOST:PORT --partition N --kind K``.
"""

from __future__ import annotations

import argparse
import logging
import os
from typing import Any, Final

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("CODECARBON_TELEMETRY", "disabled")

import flwr as fl

from fedserver.demo.digits import DigitsModel, load_partition
from fedserver_hooks.client import start_client, track_emissions, wait_for_port, warm_up

KINDS: Final = ("own-tracker", "helper", "silent")
EPOCHS: Final = 240
LEARNING_RATE: Final = 0.00025


class DigitsClient(fl.client.NumPyClient):
    """Trains on one partition of the digits, and reports nothing about itself."""

    def __init__(self, partition: int, country: str) -> None:
        self.number = partition
        self.country = country
        self.data = load_partition(partition)
        self.model = DigitsModel()

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        """The model as it starts."""
        return list(self.model.weights)

    def train(self, parameters: list[Any]) -> None:
        """One round's local training."""
        self.model.weights = [array.copy() for array in parameters]
        self.model.train(
            self.data.train_images,
            self.data.train_labels,
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            seed=self.number,
        )

    def fit(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        """Train; no emissions among the metrics."""
        self.train(parameters)
        return self.model.weights, len(self.data.train_labels), {}

    def evaluate(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Loss and accuracy on the digits that were held out."""
        self.model.weights = parameters
        loss, accuracy = self.model.evaluate(self.data.test_images, self.data.test_labels)
        return loss, len(self.data.test_labels), {"accuracy": accuracy}


class HelperClient(DigitsClient):
    """Reports with our helper: energy, window, host and intensity travel along."""

    def fit(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        """Train within `track_emissions`."""
        with track_emissions(config, country=self.country) as emissions:
            self.train(parameters)
        return self.model.weights, len(self.data.train_labels), {**emissions}


class OwnTrackerClient(DigitsClient):
    """Reports a bare number, measured with a tracker of its own."""

    def fit(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        """Train between a tracker's start and stop.

        codecarbon's *online* tracker would ask the internet where it is, and take Quebec (44 times
        below Spain) where it gets no answer; the offline one is told.
        """
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(
            country_iso_code=self.country, output_methods=[], log_level="error"
        )
        tracker.start()
        self.train(parameters)
        emissions = tracker.stop()
        metrics = {} if emissions is None else {"emissions": emissions}
        return self.model.weights, len(self.data.train_labels), metrics


_CLASSES: Final = {"own-tracker": OwnTrackerClient, "helper": HelperClient, "silent": DigitsClient}


def main() -> None:
    """Connect, train as long as the server wants, go."""
    parser = argparse.ArgumentParser(description="A client of the digits demo.")
    parser.add_argument("--server", default="127.0.0.1:5000", help="address of the FL server")
    parser.add_argument("--partition", type=int, choices=range(3), required=True)
    parser.add_argument("--kind", choices=KINDS, default="helper")
    parser.add_argument("--country", default="ESP", help="ISO 3166 alpha-3 code")
    parser.add_argument(
        "--token-variable", metavar="NAME", help="environment variable that holds a client's token"
    )
    parser.add_argument(
        "--allow-plaintext-token",
        action="store_true",
        help="send it without TLS to another machine: inside a network of one's own",
    )
    arguments = parser.parse_args()
    token = _token(parser, arguments.token_variable)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    if arguments.kind == "helper":
        warm_up()  # the meter takes two seconds to start: while the data is loaded, not in round 1
    client = _CLASSES[arguments.kind](arguments.partition, arguments.country)
    wait_for_port(arguments.server, timeout_s=60)
    if token is None:
        fl.client.start_client(server_address=arguments.server, client=client.to_client())
        return
    start_client(
        server_address=arguments.server,
        client=client,
        call_credentials=token,
        allow_plaintext_token=arguments.allow_plaintext_token,
    )


def _token(parser: argparse.ArgumentParser, variable: str | None) -> str | None:
    """The token in that variable; None where none is asked for."""
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token:
        parser.error(f"--token-variable: {variable} is not set, or empty")
    return token


if __name__ == "__main__":
    main()
