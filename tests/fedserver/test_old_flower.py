"""Clients of the platform's generation: Flower 1.13.1 with our helper, against today's server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.store import open_store
from tests.fedserver.clients import ROOT, ClientProcess, Script
from tests.fedserver.servers import ServerProcess

VENV = ROOT / ".tools" / "flwr-1.13"
CLIENT = """
import os, sys, time
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
import flwr as fl, numpy as np
from importlib.metadata import version
assert version("flwr") == "1.13.1"
from fedserver_hooks.client import track_emissions
class Client(fl.client.NumPyClient):
    def get_parameters(self, config):
        return [np.zeros((3, 2), np.float32)]
    def fit(self, parameters, config):
        with track_emissions(config, country="FRA", client_name="old") as emissions:
            time.sleep(0.2)
        return [p + 1 for p in parameters], 10, {"accuracy": 0.5, **emissions}
    def evaluate(self, parameters, config):
        return 0.25, 10, {"accuracy": 0.5}
fl.client.start_client(server_address=sys.argv[1], client=Client().to_client())
"""


@pytest.fixture(scope="module")
def old_python() -> Path:
    """An environment with Flower 1.13.1 and what the client helper needs; made once, kept."""
    python = VENV / "bin" / "python"
    marker = VENV / ".complete"
    if not marker.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        wanted = ["flwr==1.13.1", "codecarbon>=3.3,<3.4", "pydantic>=2.7"]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted], check=True)
        marker.touch()
    return python


@pytest.mark.slow
def test_a_client_on_flower_1_13_reports_with_our_helper(tmp_path: Path, old_python: Path) -> None:
    """It trains beside a client of today, its full report is accepted, and it exits 0."""
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    with ServerProcess(tmp_path, 2, rounds=2) as server, ClientProcess(server.address, Script()):
        old = subprocess.Popen(
            [str(old_python), str(script), server.address],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.wait(90) == 0, server.log
            _, log = old.communicate(timeout=20)
            assert old.returncode == 0, log
        finally:
            old.kill()
    store = open_store(server.store_url)
    (run,) = store.runs()
    reports = [r for r in store.round(run.run_id, 2).reports if r.accepted]
    store.close()
    (report,) = reports
    assert report.country == "FRA"
    assert report.host_id == run.info.server_host_id
    assert report.on_server_host
    assert report.dropped_fields is None
    assert report.energy_kwh
