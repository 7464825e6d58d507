"""A client that trains a small convolutional network with PyTorch, on the CPU, and measures itself.

python client.py --server HOST:PORT --partition 0      (then 1)
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # before flwr is imported

import flwr as fl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedserver.demo.digits import load_partition
from fedserver_hooks.client import start_client, track_emissions, warm_up

COUNTRY = "ESP"  # where this client computes


def new_model() -> nn.Module:
    """64 pixels → two convolutions → 10 digits; everybody begins with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


class Client(fl.client.NumPyClient):
    """Trains on this client's digits; the two lines with `emissions` report what it took."""

    def __init__(self, partition: int) -> None:
        data = load_partition(partition, of=2)
        self.train_set = TensorDataset(
            torch.from_numpy(data.train_images).reshape(-1, 1, 8, 8),
            torch.from_numpy(data.train_labels),
        )
        self.test_images = torch.from_numpy(data.test_images).reshape(-1, 1, 8, 8)
        self.test_labels = torch.from_numpy(data.test_labels)
        self.model = new_model()

    def get_parameters(self, config):
        """The model as arrays, in the order of its state."""
        return [values.numpy() for values in self.model.state_dict().values()]

    def set_parameters(self, parameters):
        """The server's arrays into the model."""
        names = self.model.state_dict().keys()
        state = {name: torch.tensor(v) for name, v in zip(names, parameters, strict=True)}
        self.model.load_state_dict(state)

    def fit(self, parameters, config):
        """Train, and tell the server what it took."""
        self.set_parameters(parameters)
        with track_emissions(config, country=COUNTRY) as emissions:
            optimizer = torch.optim.SGD(self.model.parameters(), lr=0.02, momentum=0.9)
            loss_of = nn.CrossEntropyLoss()
            for _ in range(5):
                for images, labels in DataLoader(self.train_set, batch_size=16, shuffle=True):
                    optimizer.zero_grad()
                    loss_of(self.model(images), labels).backward()
                    optimizer.step()
        return self.get_parameters(config), len(self.train_set), {**emissions}

    def evaluate(self, parameters, config):
        """Loss and accuracy on digits that were held out."""
        self.set_parameters(parameters)
        with torch.no_grad():
            scores = self.model(self.test_images)
        loss = nn.functional.cross_entropy(scores, self.test_labels).item()
        accuracy = (scores.argmax(1) == self.test_labels).float().mean().item()
        return loss, len(self.test_labels), {"accuracy": accuracy}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--partition", type=int, choices=[0, 1], required=True)
    parser.add_argument("--server", default="127.0.0.1:5000")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # two clients share this machine
    warm_up()  # the meter takes two seconds to start
    start_client(server_address=arguments.server, client=Client(arguments.partition))
