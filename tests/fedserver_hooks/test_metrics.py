"""``/metrics`` of a program with two lines of ours in it."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
from flwr.server.strategy import FedAvg as LegacyFedAvg
from flwr.serverapp.strategy import FedAvg
from prometheus_client.parser import text_string_to_metric_families

from fedserver_hooks import EmissionsStrategy, serve_metrics
from fedserver_hooks.legacy import with_emissions
from telemetry.errors import HttpAddressError, OpenAddress
from telemetry.store.memory import InMemoryStore
from tests.fedserver_hooks.fakes import LocalGrid, model, recorder, trains


def free_port() -> int:
    """One that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def figures(url: str) -> dict[str, float]:
    """Sums of the page's samples by name, how many are of runs, and how many rounds are shown."""
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    found = {"of runs": 0.0, "rounds": 0.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
            found["of runs"] += "run_id" in sample.labels
            found["rounds"] += sample.name == "fl_round_duration_seconds"
    return found


def test_the_two_line_form_answers_prometheus(tmp_path: Path) -> None:
    """Before, while and after the training, with its figures, and within ``max_series``."""
    port = free_port()
    strategy = EmissionsStrategy.wrap(
        FedAvg(),
        store=f"sqlite:///{tmp_path}/telemetry.db",
        country="ESP",
        metrics_port=port,
        max_series=110,
    )
    url = f"http://127.0.0.1:{port}"
    assert figures(url)["of runs"] == 0
    grid = LocalGrid({1: trains(0.5, 10, emissions_kg=0.002), 2: trains(1.5, 20)})
    strategy.start(grid, model(), num_rounds=30)
    found = figures(url)
    assert found["fl_rounds_total"] == 30
    assert found["fl_client_reports_total"] == 30
    assert found["fl_exposed_series"] == found["of runs"] <= 110
    assert found["fl_exposed_series_limit"] == 110
    assert 0 < found["rounds"] < 30
    assert found["fl_store_write_duration_seconds_count"] >= 31, "set-up and rounds"


def test_the_legacy_form_does_too(tmp_path: Path) -> None:
    """And a port that somebody has is told before the training."""
    port = free_port()
    store = f"sqlite:///{tmp_path}/telemetry.db"
    strategy = with_emissions(LegacyFedAvg(), store, "ESP", metrics_port=port, max_series=7)
    assert figures(f"http://127.0.0.1:{port}")["fl_exposed_series_limit"] == 7
    with pytest.raises(HttpAddressError, match=str(port)):
        EmissionsStrategy.wrap(FedAvg(), store=store, metrics_port=port)
    strategy.finish()


def test_other_machines_need_a_token() -> None:
    """As everywhere else."""
    book = recorder(store=InMemoryStore())
    with pytest.raises(OpenAddress):
        serve_metrics(book, 0, host="0.0.0.0")
    http = serve_metrics(book, 0, host="0.0.0.0", read_token="made-up")
    try:
        address = f"http://127.0.0.1:{http.address.rpartition(':')[2]}/metrics"
        assert httpx.get(address, trust_env=False).status_code == 401
        token = {"Authorization": "Bearer made-up"}
        assert httpx.get(address, headers=token, trust_env=False).status_code == 200
    finally:
        http.stop()
