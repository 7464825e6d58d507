"""One FL client in a process of its own that works for some seconds and measures itself, for proofs.

``python -m tests.proofs.measured_client HOST:PORT SECONDS_ELSEWHERE SECONDS_HERE``: in round 1 it says
that it is on another machine than the server, in round 2 it says where it is. Everything is the
public client helper: its meter is codecarbon, set by ``CODECARBON_*`` variables if at all.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

os.environ["FLWR_TELEMETRY_ENABLED"] = "0"  # read when Flower is imported, which is next

import numpy as np
from flwr.client import NumPyClient

from fedserver_hooks.client import start_client, track_emissions, warm_up
from fedserver_hooks.sampler import shared_sampler

ELSEWHERE_ROUND: Final = 1
METER_START_S: Final = 30.0


def work(seconds: float) -> None:
    """Keep one core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(i * i for i in range(10_000))


class Worker(NumPyClient):
    """Its training is work, its model one number."""

    def __init__(self, elsewhere_s: float, here_s: float) -> None:
        self.elsewhere_s = elsewhere_s
        self.here_s = here_s

    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return [np.zeros(1, np.float32)]

    def fit(self, parameters: list[Any], config: dict[str, Any]) -> tuple[list[Any], int, Any]:
        seconds = self.here_s
        if config["server_round"] == ELSEWHERE_ROUND:
            # A host's id is a hash of run and machine: with another text for the run, all clients
            # here agree on a host that is not the server's, as those on another machine would.
            config = {**config, "fl-run-id": f"{config['fl-run-id']} on another machine"}
            seconds = self.elsewhere_s
        with track_emissions(config, country="ESP") as emissions:
            work(seconds)
        return parameters, 1, dict(emissions)


def main() -> None:
    """Start the meter, then connect: a round's windows then begin together."""
    address, elsewhere_s, here_s = sys.argv[1:]
    warm_up()
    shared_sampler().meter.wait_ready(METER_START_S)
    start_client(
        server_address=address, client=Worker(float(elsewhere_s), float(here_s)).to_client(),
        insecure=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
