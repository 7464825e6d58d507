"""Privacy by the ways people start a server: a YAML file, the platform's form, ``--resume``."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedserver.model_io import read_arrays
from telemetry.domain import StoredRun
from telemetry.store import Store, open_store
from tests.fedserver.clients import ROOT, ClientThread, Script, wait_until
from tests.fedserver.servers import ServerProcess, nested, settings, train
from tests.fedserver.test_platform import FORM, started
from tests.fedserver.test_resume import FLEET, OPTIONS, Trained, open_rounds, play

pytestmark = pytest.mark.slow

MECHANISMS = ("central-dp", "metric-privacy")
NOISE, CLIP = 0.5, 1.0
TWO = [Script(add=1.0, metrics={"emissions": 1e-7}), Script(add=3.0, metrics={"emissions": 2e-7})]
"""Two clients that disagree, each more than the clipping norm away from what it was sent."""


def options(mechanism: str, **more: Any) -> dict[str, Any]:
    """The mechanism's options as overrides of `settings`."""
    return {
        "privacy__mechanism": mechanism,
        "privacy__noise_multiplier": NOISE,
        "privacy__clipping_norm": CLIP,
        "privacy__num_sampled_clients": 2,
        **more,
    }


def stored(folder: Path) -> tuple[Store, StoredRun]:
    """The one run in a folder's database."""
    store = open_store(f"sqlite:///{folder / 'telemetry.db'}")
    (run,) = store.runs()
    return store, run


def assert_private(folder: Path, mechanism: str, norm: float, multiplier: float) -> None:
    """The run is on record as private, its noise is as `research` has it, the model was clipped."""
    store, run = stored(folder)
    try:
        assert (run.status, run.info.privacy) == (
            "completed", f"{mechanism} (no formal guarantee)",
        )  # fmt: skip
        for number in (1, 2):
            noise = store.round(run.run_id, number).noise
            assert noise is not None
            if mechanism == "central-dp":
                assert noise.distance is None
                assert noise.noise_stdv == pytest.approx(multiplier * norm / 2, rel=1e-12)
            else:
                assert noise.distance is not None
                assert noise.distance == pytest.approx(2 * 6**0.5, rel=1e-6)
                assert noise.noise_stdv == pytest.approx(
                    multiplier * norm / noise.distance / 2, rel=1e-6
                )
    finally:
        store.close()
    (path,) = folder.glob("runs/*/model.npz")
    flat = np.concatenate([layer.numpy().ravel() for layer in read_arrays(path).values()])
    # Without clipping two rounds come to 4 on each weight; clipped, to 2 × norm over all of them.
    assert np.isfinite(flat).all()
    assert np.abs(flat).max() < 4 * (norm + 3 * multiplier * norm)
    assert len(np.unique(flat)) == flat.size, "no noise: all weights are the same"


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_file_with_privacy_is_checked_and_trains(tmp_path: Path, mechanism: str) -> None:
    """`check-config` accepts the very file that `fedserver run` then trains by, over sockets."""
    given = options(mechanism)
    path = tmp_path / "checked.yaml"
    path.write_text(yaml.safe_dump(nested(settings(tmp_path, 2, **given))))
    checked = command("check-config", "-c", str(path))
    assert checked.returncode == 0, checked.stderr
    assert re.search(rf'^privacy\.mechanism +"{mechanism}" .*checked\.yaml', checked.stdout, re.M)
    with ServerProcess(tmp_path, 2, **given) as server, ExitStack() as stack:
        play(server, stack, TWO)
        assert server.wait() == 0, server.log
        log = server.log
    assert (tmp_path / "server.yaml").read_text() == path.read_text()
    assert f"privacy {mechanism}: no formal guarantee" in log
    assert "Traceback" not in log
    assert_private(tmp_path, mechanism, CLIP, NOISE)


def test_a_wrong_privacy_section_is_told_by_check_config_and_run_alike(tmp_path: Path) -> None:
    """A misspelt option: exit 2, the key and the choices, no traceback, from both commands."""
    path = tmp_path / "server.yaml"
    given = options("central-dp", privacy__noise_multiplyer=1.0)
    path.write_text(yaml.safe_dump(nested(settings(tmp_path, 2, **given))))
    said = []
    for name in ("check-config", "run"):
        done = command(name, "-c", str(path))
        assert done.returncode == 2
        assert "privacy.noise_multiplyer" in done.stderr
        assert "noise_multiplier" in done.stderr.replace("noise_multiplyer", "")
        assert "Traceback" not in done.stderr
        said.append(done.stderr)
    assert said[0] == said[1]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``fedserver``, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "fedserver", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# --- the platform --------------------------------------------------------------------------------


@pytest.mark.parametrize("tracked", ["True", "False"])
@pytest.mark.parametrize(
    ("by_metric", "mechanism"), [("False", "central-dp"), ("True", "metric-privacy")]
)
def test_the_forms_text_makes_a_private_training(
    tmp_path: Path, by_metric: str, mechanism: str, tracked: str
) -> None:
    """DP, METRIC_PRIVACY and CODE_CARBON as strings, through `server.py` to noise in the model."""
    environ = FORM | {
        "DP": "True",
        "METRIC_PRIVACY": by_metric,
        "NOISE_MULT": "0.1",
        "CLIP_NORM": "0.5",
        "SAMPLED_CLIENTS": "2",
        "CODE_CARBON": tracked,
    }
    wanted = ("server.address=127.0.0.1:0", "telemetry.http.port=0", "telemetry.http.linger_s=0",
              f"telemetry.database_url=sqlite:///{tmp_path / 'telemetry.db'}")  # fmt: skip
    pairs = [part for value in wanted for part in ("--set", value)]
    with started(str(ROOT / "fedserver/server.py"), tmp_path, environ, *pairs) as server:
        address = server.wait_for(r"clients may connect to (\S+);").group(1)
        with ExitStack() as stack:
            for number, script in enumerate(TWO, 1):
                stack.enter_context(ClientThread(address, script))
                server.wait_for(rf"client .*#{number} connected")
            assert server.wait() == 0, server.log
        log = server.log
    assert f"privacy {mechanism}: no formal guarantee" in log
    assert_private(tmp_path, mechanism, 0.5, 0.1)
    store, run = stored(tmp_path)
    (_, first, _) = store.rounds(run.run_id)
    store.close()
    assert run.info.tracked is (tracked == "True")
    assert (first.clients_emissions_kg is not None) is (tracked == "True")


# --- resume --------------------------------------------------------------------------------------


ACCOUNTED = {
    "privacy__weights": "equal",
    "privacy__accounting": {"delta": 1e-5, "population": 10},
}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, id="central-dp"),
        pytest.param({"strategy__name": "FedAvgM", "strategy__server_momentum": 0.9}, id="FedAvgM"),
        pytest.param(ACCOUNTED, id="accounted"),
    ],
)
def test_a_killed_private_run_goes_on_bit_for_bit(tmp_path: Path, more: dict[str, Any]) -> None:
    """SIGKILL in round 3 of 6: model, noise and the epsilon spent are those of a run left alone."""
    given = OPTIONS | options("central-dp", **more)
    alone, folder = tmp_path / "alone", tmp_path / "killed"
    folder.mkdir()
    train(alone, FLEET, **given)
    hangs = [replace(script, fit="hang", fit_rounds=(3,), hang_s=25) for script in FLEET]
    with ServerProcess(folder, 3, **given) as server, ExitStack() as stack:
        play(server, stack, hangs)
        server.wait_for("round 2/6 completed")
        wait_until(lambda: (3, "running") in open_rounds(folder))
        server.signal(signal.SIGKILL)
        server.wait()
    resume = ("--resume", "latest")
    with ServerProcess(folder, 3, arguments=resume, **given) as server, ExitStack() as stack:
        play(server, stack, FLEET)
        assert server.wait() == 0, server.log
    left, right = Trained(alone), Trained(folder)
    assert right.model == left.model
    assert spent(right) == spent(left)
    assert noise_of(folder) == noise_of(alone)
    assert len(noise_of(folder)) == 6
    if "privacy__accounting" in more:
        epsilons = [epsilon for epsilon in spent(right) if epsilon is not None]
        assert epsilons == sorted(set(epsilons))
        assert len(epsilons) == 6


def spent(done: Trained) -> list[float | None]:
    """Epsilon after each completed round."""
    return [row.privacy_epsilon for row in done.rounds if row.round and row.status == "completed"]


def noise_of(folder: Path) -> list[Any]:
    """The noise of each completed round."""
    store, run = stored(folder)
    records = [
        store.round(run.run_id, row.round, row.attempt)
        for row in store.rounds(run.run_id)
        if row.round and row.status == "completed"
    ]
    store.close()
    return [record.noise for record in records]
