"""A simulation's energy, split by CPU time, against one tracker of the machine that it runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from math import fsum
from pathlib import Path

import pytest

from telemetry.store import open_store
from tests.fedserver.clients import wait_until
from tests.proofs.machine_tracker import MachineTracker
from tests.tools import require_package

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 0.15


@pytest.mark.parametrize("actors", [1, 4, 16])
def test_a_simulation_is_its_machine_once_split_by_work(tmp_path: Path, actors: int) -> None:
    """The total is the tracker's, the clients' part is their CPU time's, each one's is its own."""
    require_package("ray")
    from tests.proofs.simulated import WORK_S, weight

    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    url = f"sqlite:///{tmp_path / 'telemetry.db'}"
    with MachineTracker(environ) as tracker:
        wait_until(lambda: tracker.ready, 60)
        done = subprocess.run(
            [sys.executable, "-m", "tests.proofs.simulated", str(actors), url],
            cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        store = open_store(url)
        (run,) = store.runs()
        record = store.round(run.info.run_id, 2)
        window = record.started_at.timestamp(), record.ended_at.timestamp()
        wait_until(lambda: tracker.shown_until() > window[1])
        machine_kwh, busy_s = tracker.energy_kwh(*window), tracker.busy_s(*window)

    clients_kwh, server_kwh = record.clients_energy_kwh, record.server_energy_kwh
    assert clients_kwh is not None
    assert server_kwh is not None
    worked_kwh = machine_kwh * WORK_S / busy_s
    total = (clients_kwh + server_kwh) / machine_kwh
    print(f"{actors:2} actors, total: {total:.3f} x the tracker's")  # noqa: T201
    print(f"{actors:2} actors, clients: {clients_kwh / worked_kwh:.3f} x their work's")  # noqa: T201
    assert len(record.accepted) == actors
    assert clients_kwh + server_kwh == pytest.approx(machine_kwh, rel=TOLERANCE)
    assert clients_kwh == pytest.approx(worked_kwh, rel=TOLERANCE)
    partitions = {p.node_id: (p.examples or 0) - 1 for p in record.participants}
    whole = fsum(weight(partition) for partition in partitions.values())
    for report in record.accepted:
        own = weight(partitions[report.node_id]) / whole
        assert report.counted_energy_kwh == pytest.approx(clients_kwh * own, rel=TOLERANCE)
