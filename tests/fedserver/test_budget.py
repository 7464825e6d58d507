"""What a budget does to whole trainings over sockets: who is stopped, when, and what is left."""

from __future__ import annotations

import csv
import logging
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import fedserver_hooks.budget
from fedserver.assemble import Server
from fedserver.config import load_config
from fedserver.errors import ConfigError
from fedserver.running import run_server
from fedserver_hooks.meter import ReplayMeter
from telemetry.store import open_store
from tests.fedserver.clients import ROOT, Script
from tests.fedserver.helper_clients import GRPC_RACE, HelperThread
from tests.fedserver.servers import ServerProcess, Training, settings, train

pytestmark = pytest.mark.filterwarnings(GRPC_RACE)
NO_POWER = 0.0
"""The server's meter reads 0: what a round comes to is what clients report, exactly."""
KG = 1e-6
SEPARATE = {"emissions__loopback_clients": "separate"}
"""Bare reports count in full, as from machines of their own."""


@pytest.fixture(autouse=True)
def _time_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine gets its verdict too; that none is waited for long is tested elsewhere."""
    monkeypatch.setattr(fedserver_hooks.budget, "WAIT_S", 20.0)


def fleet(*reported_kg: float) -> list[Script]:
    """A client for each amount, which it reports every round."""
    return [Script(metrics={"emissions": kg}) for kg in reported_kg]


def spend(
    folder: Path,
    scripts: list[Script],
    budget_kg: float,
    *,
    watts: float = NO_POWER,
    **options: Any,
) -> Training:
    """At most six rounds, to be stopped on the budget."""
    options = {
        "rounds": 6,
        "emissions__budget_kg": budget_kg,
        "emissions__on_budget": "stop",
        **SEPARATE,
        **options,
    }
    return train(folder, scripts, meter=ReplayMeter(watts), **options)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of the budget as a warning."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and "budget" in record.getMessage()
    ]


def test_a_run_is_stopped_before_the_round_that_would_cross(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """4 mg a round and 11 to spend: two rounds are played, a third is not; all else is as ever."""
    page: list[str] = []

    def look(_: Server, url: str) -> None:
        page.append(url)

    training = spend(tmp_path, fleet(KG, KG, KG, KG), 11 * KG, on_ready=look)

    assert training.outcome.exit_code == 0
    assert training.run.status == training.outcome.status == "stopped_on_budget"
    assert [(row.round, row.status) for row in training.rounds] == [
        (0, "completed"),
        (1, "completed"),
        (2, "completed"),
    ]
    assert training.run.totals.total_emissions_kg == pytest.approx(8 * KG, rel=1e-9)
    reason = (
        "stopped before round 3: 0.00800 g of the budget of 0.0110 g are spent (73 %), and the next "
        "round would take about 0.00400 g"
    )
    assert training.run.reason == reason
    assert training.outcome.closing.startswith(f"{reason}; total 0.0080 g = ")
    assert "budget 0.011 g: 73 % used" in training.outcome.closing
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert [client.wait() for client in training.clients] == [None] * 4
    artefacts = {path.name: path for path in training.outcome.artefacts}
    assert set(artefacts) == {"footprint.csv", "run.json", "model.npz"}
    with np.load(artefacts["model.npz"]) as model:
        assert all(np.all(model[name] == 2.0) for name in model.files), "two rounds added 1 each"
    with artefacts["footprint.csv"].open() as file:
        assert [row["round"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    assert not (artefacts["model.npz"].parent / "checkpoint").exists()


def test_a_run_that_was_stopped_stays_stopped(tmp_path: Path) -> None:
    """A run keeps its budget: it is not resumed, and what to do instead is said."""
    training = spend(tmp_path, fleet(KG, KG, KG), 4 * KG)
    assert training.run.status == "stopped_on_budget"
    options = {"emissions__budget_kg": 4 * KG, "emissions__on_budget": "stop", **SEPARATE}
    config = load_config(None, {}, settings(tmp_path, 3, rounds=6, **options)).config
    with pytest.raises(ConfigError, match=r"has used its budget.*model\.initial: .*model\.npz"):
        run_server(config, resume=training.outcome.run_id, meter=ReplayMeter(NO_POWER))


def test_a_budget_that_only_warns_warns_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nearly spent, about to be crossed, spent: three lines, and every round is played."""
    training = spend(tmp_path, fleet(KG, KG, KG), 10 * KG, rounds=5, emissions__on_budget="warn")
    assert training.run.status == "completed"
    assert len(training.rounds) == 6
    crossing, spent = said(caplog)
    assert "0.00900 g of the budget of 0.0100 g are spent (90 %), and the next" in crossing
    assert "0.0120 g of the budget of 0.0100 g are spent (120 %)" in spent
    assert "budget 0.010 g: 150 % used" in training.outcome.closing


def test_at_80_percent_it_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and with the last round, before which nobody asks, as well."""
    training = spend(tmp_path, fleet(KG, KG, KG, KG), 10 * KG, rounds=2)
    assert training.run.status == "completed"
    (line,) = said(caplog)
    assert line == "0.00800 g of the budget of 0.0100 g are spent (80 %)"


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        ((2 * KG, 2 * KG), "fewer than 3 clients reported"),
        ((2.5 * KG, KG / 2, KG / 2, KG / 2), "one client may make more than half"),
    ],
    ids=["two reporters", "a great one"],
)
def test_too_few_reporters_stop_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, reported: tuple[float, ...], words: str
) -> None:
    """Anybody could claim so much: the run goes on to its end, and says why, once."""
    training = spend(tmp_path, fleet(*reported), 6 * KG, rounds=4)
    assert (training.run.status, training.outcome.exit_code) == ("completed", 0)
    assert len(training.rounds) == 5
    lines = [line for line in said(caplog) if words in line]
    assert all("the training goes on" in line for line in lines)
    assert ["next round" in line for line in lines] == [True, False], "to be crossed; spent"


def test_with_tokens_two_clients_are_enough(tmp_path: Path) -> None:
    """The operator has let each of them in: their word counts."""
    tokens = [
        subprocess.run(
            [sys.executable, "-m", "fedserver", "tokens", "create", "--label", label,
             "--store", str(tmp_path / "tokens.db")],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
        ).stdout.strip()
        for label in ("a", "b")
    ]  # fmt: skip
    options = {
        "rounds": 6,
        "server__auth": "tokens",
        "server__tokens_store": str(tmp_path / "tokens.db"),
        "emissions__budget_kg": 9 * KG,
        "emissions__on_budget": "stop",
        **SEPARATE,
    }
    config = load_config(None, {}, settings(tmp_path, 2, **options)).config
    with ExitStack() as stack:
        clients: list[HelperThread] = []

        def start(server: Server, _: str) -> None:
            for token, script in zip(tokens, fleet(2 * KG, 2 * KG), strict=True):
                client = HelperThread(server.grid.address, script, call_credentials=token)
                clients.append(stack.enter_context(client))

        outcome = run_server(config, meter=ReplayMeter(NO_POWER), on_ready=start)
        assert [client.wait(30) for client in clients] == [None, None]
    assert (outcome.status, outcome.exit_code) == ("stopped_on_budget", 0)
    store = open_store(config.telemetry.database_url)
    assert [row.round for row in store.rounds(outcome.run_id)] == [0, 1, 2]
    store.close()


def test_a_budget_spent_by_the_set_up_stops_before_round_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody has trained: no round, the model that it would have begun with, and no checkpoint."""
    caplog.set_level(logging.INFO)
    training = spend(tmp_path, fleet(KG, KG, KG), 1e-12, watts=1000.0)
    assert (training.run.status, training.outcome.exit_code) == ("stopped_on_budget", 0)
    assert [row.round for row in training.rounds] == [0]
    assert training.run.reason is not None
    assert training.run.reason.startswith("stopped before round 1: ")
    assert training.run.totals.total_emissions_kg is not None
    assert training.run.totals.total_emissions_kg > 1e-12
    assert "checkpoint" not in caplog.text


def test_a_server_process_says_so_and_exits_with_0(tmp_path: Path) -> None:
    """By itself, with its closing line, and with the budget on ``/metrics``."""
    overrides: dict[str, Any] = {
        "rounds": 6,
        "emissions__budget_kg": 0.2,
        "emissions__on_budget": "stop",
        "emissions__network_kwh_per_gb": 0.06,
        "emissions__carbon_intensity_g_per_kwh": 100.0,
        "telemetry__http__linger_s": 3,
        **SEPARATE,
    }
    with ExitStack() as stack:
        server = stack.enter_context(ServerProcess(tmp_path, 4, **overrides))
        for script in fleet(0.02, 0.02, 0.02, 0.02):
            stack.enter_context(HelperThread(server.address, script))
        # Rounds of a twentieth of a second: where the disk takes longer, the verdict holds later.
        server.wait_for(r"run \S+ stopped_on_budget: stopped before round [3-6]: ", 60)
        with urllib.request.urlopen(server.metrics_url, timeout=5) as answer:  # noqa: S310 http
            text = answer.read().decode()
        assert server.wait() == 0
    found = {
        (sample.name, *sorted(v for k, v in sample.labels.items() if k != "run_id")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["fl_emissions_budget_co2eq_grams",] == pytest.approx(200.0)
    assert found["fl_emissions_budget_used_ratio",] >= 0.8
    sizes = (
        found["fl_network_bytes_total", "from_clients"]
        + found["fl_network_bytes_total", "to_clients"]
    )
    estimated = found[
        "fl_run_emissions_estimate_co2eq_grams", "central", "communication", "estimated"
    ]
    assert estimated == pytest.approx(sizes / 1e9 * 0.06 * 100.0, rel=1e-9)
    assert "estimated for communication (allocated, estimated)" in server.log
