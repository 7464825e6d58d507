"""The ServerApp: its run config, and ``flwr run`` over a real SuperLink and two SuperNodes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fedserver.app import config_of
from fedserver.errors import ConfigError
from telemetry.store import open_store
from tests.fedserver.clients import ROOT
from tests.fedserver.superlink import Federation

EXAMPLE = ROOT / "examples/flower-app"


def test_a_flat_run_config_is_the_configuration() -> None:
    """Kebab-case and snake_case, dots for nesting, text for lists, and the app's own keys apart."""
    config = config_of(
        {
            "rounds": 7,
            "track-emissions": True,
            "emissions.country": "ESP",
            "emissions.carbon_intensity_g_per_kwh": 100,
            "emissions.budget-kg": 0.5,
            "emissions.on-budget": "stop",
            "metrics": "accuracy, f1",
            "clients.min-fit": 3,
            "strategy.name": "FedAvg",
            "app.local-epochs": 2,
        },
        {"FEDSERVER_RUN_NAME": "from-outside", "FEDSERVER_ROUNDS": "9", "DP": "True"},
    )
    assert (config.rounds, config.track_emissions, config.metrics) == (7, True, ("accuracy", "f1"))
    assert (config.emissions.country, config.clients.min_fit) == ("ESP", 3)
    assert (config.emissions.budget_kg, config.emissions.on_budget) == (0.5, "stop")
    assert (config.run_name, config.privacy) == ("from-outside", None)


@pytest.mark.parametrize(
    ("run_config", "words"),
    [
        ({"round": 5}, "unknown key; did you mean rounds"),
        ({"rounds": 0}, "rounds: 0 must be at least 1 (run config)"),
        ({"track-emissions": "perhaps"}, "must be true or false"),
        ({"emissions.country": "Spain"}, "3-letter code"),
        ({"server.address": "0.0.0.0:5000"}, "clients connect to the SuperLink"),
        ({"local-epochs": 2}, "unknown key"),
    ],
)
def test_a_wrong_run_config_is_refused_as_in_a_file(run_config: dict[str, Any], words: str) -> None:
    """The same checks and words, with where it stands."""
    with pytest.raises(ConfigError) as caught:
        config_of(run_config, {})
    assert words in str(caught.value)


@pytest.mark.slow
def test_the_example_trains_over_a_superlink_and_two_supernodes(tmp_path: Path) -> None:
    """`flwr run`, offline: both clients report with a host of their own, and the server is metered."""
    nodes = [f"partition-id={number} num-partitions=2" for number in range(2)]
    app = tmp_path / "app"
    shutil.copytree(EXAMPLE, app, ignore=shutil.ignore_patterns("__pycache__"))
    with Federation(tmp_path, nodes) as federation:
        done = federation.run(app)
        log = federation.log_of(done)
        assert done["status"] == "finished:completed", log + federation.logs
    store = open_store(f"sqlite:///{tmp_path / 'telemetry.db'}")
    (run,) = store.runs()
    rows = list(store.rounds(run.run_id))
    store.close()
    assert run.status == "completed"
    assert [row.status for row in rows] == ["completed"] * 3
    for row in rows[1:]:
        assert (row.participants, row.reported, row.evaluate_reported) == (2, 2, 2)
        assert row.reports_without_host == 0
        assert row.total_emissions_kg is not None
        assert row.evaluate_metrics["accuracy"] > 0.1
    assert "round 2/2 completed" in log
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["footprint.csv", "model.npz", "run.json"]


@pytest.mark.slow
def test_a_mistake_in_the_run_config_fails_the_run_and_says_why(tmp_path: Path) -> None:
    """Flower marks the run as failed; its list and the log have the key, the value and the choices."""
    app = tmp_path / "app"
    shutil.copytree(EXAMPLE, app, ignore=shutil.ignore_patterns("__pycache__"))
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace(
        "rounds = 2", 'rounds = 2\nstrategy.name = "FedAvgg"'
    ))  # fmt: skip
    with Federation(tmp_path, []) as federation:
        done = federation.run(app)
        log = federation.log_of(done)
    assert done["status"] == "finished:failed"
    for said in (done["status-details"], log):
        assert '"FedAvgg" is no strategy; did you mean FedAvg?' in said
