"""Servers that call ``fl.server.start_server``: the same record over Flower's older way."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.common import (
    Code,
    FitIns,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
)
from flwr.server.client_manager import SimpleClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg

from fedserver_hooks.client import wait_for_port
from fedserver_hooks.legacy import CLOSED, with_emissions
from telemetry.domain import RoundRecord
from telemetry.store import Store, open_store
from telemetry.store.memory import InMemoryStore
from tests.fedserver.clients import ROOT, ClientProcess, ClientThread, Script
from tests.fedserver.superlink import free_port
from tests.fedserver_hooks.fakes import recorder

OK = Status(Code.OK, "")


class Proxy(ClientProxy):
    """A client that only has an id: the strategy under test never talks to it."""

    def get_properties(self, *_: Any, **__: Any) -> Any:
        """Never called."""
        raise NotImplementedError

    def get_parameters(self, *_: Any, **__: Any) -> Any:
        """Never called."""
        raise NotImplementedError

    def fit(self, *_: Any, **__: Any) -> Any:
        """Never called."""
        raise NotImplementedError

    def evaluate(self, *_: Any, **__: Any) -> Any:
        """Never called."""
        raise NotImplementedError

    def reconnect(self, *_: Any, **__: Any) -> Any:
        """Never called."""
        raise NotImplementedError


def parameters(*values: float) -> Parameters:
    """A model of one layer."""
    return ndarrays_to_parameters([np.array(values, np.float64)])


def manager(*names: str) -> SimpleClientManager:
    """These clients, connected."""
    clients = SimpleClientManager()
    for name in names:
        clients.register(Proxy(name))
    return clients


def answer(value: float, examples: int = 10, **metrics: Any) -> FitRes:
    """A client's model and metrics."""
    return FitRes(OK, parameters(value), examples, metrics)


def test_the_strategy_sees_no_report_and_its_model_is_unchanged() -> None:
    """Bare and full reports are taken out; what is aggregated is the same bit for bit."""
    seen: list[Any] = []

    def keep(metrics: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
        seen.extend(metrics)
        return {}

    inner = FedAvg(fraction_evaluate=0.0, fit_metrics_aggregation_fn=keep)
    store = InMemoryStore()
    strategy = with_emissions(inner, recorder=recorder(store), rounds=1)
    clients = manager("a", "b")
    sent = strategy.configure_fit(1, parameters(0.0), clients)
    by_id = {proxy.cid: proxy for proxy, _ in sent}
    assert {ins.config["fl-run-id"] for _, ins in sent} == {strategy.recorder.run.run_id}
    assert sent[0][1] is sent[1][1]
    results = [
        (by_id["a"], answer(0.1, 7, accuracy=0.5, emissions=1e-6)),
        (by_id["b"], answer(0.7, 13, **{"emissions": 3e-6, "emissions.host_id": "b" * 12})),
    ]
    found, _ = strategy.aggregate_fit(1, results, [])
    expected, _ = FedAvg().aggregate_fit(1, results, [])
    strategy.configure_evaluate(1, parameters(0.0), manager())
    strategy.finish()

    assert found is not None
    assert expected is not None
    assert found.tensors == expected.tensors
    assert seen == [(7, {"accuracy": 0.5}), (13, {})]
    assert results[0][1].metrics == {"accuracy": 0.5, "emissions": 1e-6}  # not ours to change
    record = store.round(strategy.recorder.run.run_id, 1)
    assert record.clients_emissions_kg == pytest.approx(4e-6, rel=1e-9)
    assert {p.node_id: (p.outcome, p.examples) for p in record.participants} == {
        "a": ("reported", 7), "b": ("reported", 13),
    }  # fmt: skip
    assert store.run(record.run_id).status == "completed"


def test_failures_have_a_node_and_a_reason() -> None:
    """A status names its client; an exception does not, but only one client is left without answer."""
    store = InMemoryStore()
    strategy = with_emissions(FedAvg(min_available_clients=3), recorder=recorder(store))
    sent = strategy.configure_fit(1, parameters(0.0), manager("a", "b", "c"))
    by_id = {proxy.cid: proxy for proxy, _ in sent}
    refused = FitRes(Status(Code.FIT_NOT_IMPLEMENTED, "no fit"), parameters(), 0, {"emissions": 1})
    strategy.aggregate_fit(
        1, [(by_id["a"], answer(1.0))], [(by_id["b"], refused), RuntimeError("")]
    )
    strategy.recorder.finish("completed")
    record = store.round(strategy.recorder.run.run_id, 1)
    assert {p.node_id: (p.outcome, p.reason) for p in record.participants} == {
        "a": ("missing", None),
        "b": ("failed", "the client's status is FIT_NOT_IMPLEMENTED: no fit"),
        "c": ("failed", CLOSED),
    }
    assert record.status == "partial"


def test_a_program_that_ends_in_a_round_was_interrupted() -> None:
    """Flower exits with 0 on a signal: only the open round tells."""
    store = InMemoryStore()
    strategy = with_emissions(FedAvg(), recorder=recorder(store))
    strategy.configure_fit(1, parameters(0.0), manager("a", "b"))
    strategy.finish()
    assert store.run(strategy.recorder.run.run_id).status == "interrupted"


def test_a_round_without_clients_failed_and_says_so() -> None:
    """Flower goes on without training: there is no new model."""

    class Nobody(FedAvg):
        def configure_fit(self, *_: Any) -> list[tuple[ClientProxy, FitIns]]:
            return []

    store = InMemoryStore()
    strategy = with_emissions(Nobody(fraction_evaluate=0.0), recorder=recorder(store), rounds=1)
    strategy.configure_fit(1, parameters(0.0), manager())
    strategy.configure_evaluate(1, parameters(0.0), manager())
    record = store.round(strategy.recorder.run.run_id, 1)
    assert (record.status, record.reason) == ("failed", "no clients were selected")


# --- over sockets --------------------------------------------------------------------------------


class Played:
    """What a legacy server left in its store."""

    def __init__(self, store: Store) -> None:
        (self.run,) = store.runs()
        self.rows = list(store.rounds(self.run.run_id))
        self.records: list[RoundRecord] = [
            store.round(self.run.run_id, row.round) for row in self.rows
        ]
        store.close()


@contextmanager
def server(folder: Path, clients: int, *arguments: str) -> Iterator[tuple[str, Any]]:
    """A user's own server as a process; its address and the process."""
    address = f"127.0.0.1:{free_port()}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fedserver_hooks.legacy_server", address,
             f"sqlite:///{folder / 'telemetry.db'}", str(clients), *arguments],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_for_port(address, 30)
        yield address, process
    finally:
        process.kill()
        process.wait()


def play(folder: Path, scripts: Sequence[Script], *arguments: str) -> Played:
    """A training with these clients; one that dies has a process of its own."""
    with server(folder, len(scripts), *arguments) as (address, process), ExitStack() as stack:
        for script in scripts:
            kind = ClientProcess if script.fit == "die" else ClientThread
            stack.enter_context(kind(address, script))
        assert process.wait(60) == 0, (folder / "server.log").read_text()
    return Played(open_store(f"sqlite:///{folder / 'telemetry.db'}"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """The fleet of test_training, but for those that only the guard of `fedserver run` survives.

    Each has its own number of examples, by which it is found again.
    """
    reports: list[Any] = [1e-6, None, math.nan, math.inf, -1, "0.5", True, 1e308]
    scripts = [
        Script(examples=number, metrics={} if value is None else {"emissions": value})
        for number, value in enumerate(reports, 1)
    ]
    scripts += [
        Script(examples=9, evaluate_metrics={"accuracy": 0.5, "emissions": 2e-6}),
        Script(examples=10, fit="die", fit_rounds=(1,), metrics={"emissions": 3e-6}),
        Script(examples=11, fit="status", metrics={"emissions": 4e-6}),
        Script(examples=14, evaluates=False, metrics={"emissions": 7e-6}),
    ]
    return play(tmp_path_factory.mktemp("legacy"), scripts)


def test_the_mixed_fleet_has_the_rows_of_a_fedserver_run(mixed: Played) -> None:
    """Outcome and rejection of each client, coverage and sums: as in test_training."""
    assert mixed.run.status == "completed"
    assert [row.status for row in mixed.rows] == ["completed", "partial", "partial"]
    record = mixed.records[1]
    examples = {p.node_id: p.examples for p in record.participants}
    outcomes = {examples[p.node_id]: p.outcome for p in record.participants if p.examples}
    assert outcomes == {
        1: "reported", 2: "missing", 3: "rejected", 4: "rejected", 5: "rejected", 6: "rejected",
        7: "rejected", 8: "rejected", 9: "missing", 14: "reported",
    }  # fmt: skip
    rejected = {examples[r.node_id]: r.rejection for r in record.reports if r.rejection}
    assert rejected == {
        3: "not_finite", 4: "not_finite", 5: "negative", 6: "not_a_number", 7: "not_a_number",
        8: "implausible",
    }  # fmt: skip
    reasons = sorted(p.reason or "" for p in record.participants if p.outcome == "failed")
    assert len(reasons) == 2
    assert reasons[0].startswith("the client's status is FIT_NOT_IMPLEMENTED: told to")
    assert "connection" in reasons[1].lower() or "grpc" in reasons[1].lower()


def test_the_mixed_fleets_figures_are_sums(mixed: Played) -> None:
    """Evaluation is counted on its own; the server's meter is shared out over the rounds."""
    record = mixed.records[2]
    assert record.evaluate_reported == 1
    assert record.clients_emissions_kg == pytest.approx(1e-6 + 2e-6 + 7e-6, rel=1e-9)
    assert record.coverage == pytest.approx(2 / 11)
    assert record.reports_without_host == 3
    for row in mixed.rows[1:]:
        assert row.host_energy_kwh == pytest.approx(100.0 * row.duration_s / 3.6e6, rel=0.05)


def test_flowers_privacy_wrapper_works_inside(tmp_path: Path) -> None:
    """`with_emissions(DifferentialPrivacyServerSideFixedClipping(FedAvg))`: trained and recorded."""
    done = play(tmp_path, [Script(metrics={"emissions": 1e-6}), Script()], "dp")
    assert [row.status for row in done.rows] == ["completed"] * 3
    assert [(row.participants, row.reported) for row in done.rows[1:]] == [(2, 1)] * 2


def test_a_signal_in_a_round_leaves_an_interrupted_run(tmp_path: Path) -> None:
    """Flower's own handler ends the program; the record is closed on the way out."""
    hang = Script(fit="hang", hang_s=25)
    with (
        server(tmp_path, 2) as (address, process),
        ClientThread(address, hang) as one,
        ClientThread(address, hang) as other,
    ):
        assert one.in_fit.wait(20)
        assert other.in_fit.wait(20)
        process.send_signal(signal.SIGTERM)
        one.release.set()
        other.release.set()
        process.wait(30)
    done = Played(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}"))
    assert done.run.status == "interrupted"


@pytest.mark.slow
def test_the_example_runs_as_it_stands(tmp_path: Path) -> None:
    """examples/legacy-server with codecarbon and two clients: three rounds on record."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "examples/legacy-server/server.py"), address],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for_port(address, 60)
        script = Script(metrics={"emissions": 1e-7})
        with ClientThread(address, script), ClientThread(address, script):
            assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
    done = Played(open_store(f"sqlite:///{tmp_path / 'telemetry.db'}"))
    assert [row.status for row in done.rows] == ["completed"] * 4
    assert done.run.totals.server_emissions_kg is not None
