"""A minute of the soak: each kind of fault once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import LONGEST
from tests.fedserver.clients import ROOT, wait_until
from tests.soak.faults import KINDS, OFTEN, schedule
from tests.soak.fleet import PATIENCE_S, RUN_S, Trainee, reference

COUNT = len(KINDS) + len(OFTEN)
NOBODY = "http://127.0.0.1:9"
"""An address where no service is."""


def test_a_seed_stands_for_its_faults() -> None:
    """The same ones at the same moments; all kinds are among them."""
    faults = schedule(7, 20, 600.0)
    assert faults == schedule(7, 20, 600.0)
    assert faults != schedule(8, 20, 600.0)
    assert len(faults) == 20
    assert {fault.kind for fault in faults} == set(KINDS)
    assert [fault.at_s for fault in faults] == sorted(fault.at_s for fault in faults)
    assert all(10 < fault.at_s < 600 for fault in faults)
    assert next(fault.seconds for fault in faults if fault.kind == "PostgreSQL stops") == 30.0


@pytest.mark.slow
def test_a_start_on_a_full_disk_is_tried_again(tmp_path: Path) -> None:
    """The server gives up in plain words; the soak counts that, and the next one trains."""
    model = reference(tmp_path / "reference")
    trainee = Trainee("a", tmp_path / "a", tmp_path / "telemetry.db", service=NOBODY, model=model)
    trainee.start()
    wait_until(lambda: trainee.process() is not None, PATIENCE_S)
    first = trainee.process()
    assert first is not None
    # Its calls are timed into a file that must be there; the database comes later.
    while not list(trainee.folder.glob("hook-times*")) and first.poll() is None:
        time.sleep(0.001)
    trainee.fill_disk(first)
    wait_until(lambda: trainee.process() is not first, PATIENCE_S)
    trainee.stop(RUN_S)
    assert (trainee.refused, trainee.completed, trainee.problems) == (1, 1, [])


@pytest.mark.slow
def test_a_minute_of_faults(record_property: Callable[[str, object], None]) -> None:
    """Servers, services and PostgreSQL as processes: every row arrives, once."""
    settings = {"SOAK_SECONDS": "60", "SOAK_FAULTS": str(COUNT), "SOAK_SEED": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.soak"],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    assert "verdict: passed" in done.stdout
    (longest,) = re.findall("longest hook call .*", done.stdout)
    record_property(LONGEST, longest)
    assert re.search(rf"^{COUNT} faults; ", done.stdout, re.MULTILINE), done.stdout
