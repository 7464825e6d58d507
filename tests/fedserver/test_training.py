"""Whole trainings over real sockets, in this process: fleets, failures, figures."""

from __future__ import annotations

import math
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedserver_hooks.meter import MeterError, ReplayMeter
from telemetry.domain import RoundRecord
from tests.fedserver.clients import Script
from tests.fedserver.servers import Training, train


def outcomes(record: RoundRecord) -> dict[str, tuple[str | None, str | None]]:
    """Outcome and reason by node id; nodes are numbered from 1 in the order of the scripts."""
    return {p.node_id: (p.outcome, p.reason) for p in record.participants}


def reporting(value: Any, **script: Any) -> Script:
    """A good client that returns this as ``emissions``."""
    return Script(metrics={"emissions": value}, **script)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Every kind of client in one fleet, two rounds."""
    scripts = [
        reporting(1e-6),  # 1
        Script(),  # 2 silent
        reporting(math.nan),  # 3
        reporting(math.inf),  # 4
        reporting(-1),  # 5
        reporting("0.5"),  # 6
        reporting(True),  # 7
        reporting(1e308),  # 8
        Script(evaluate_metrics={"accuracy": 0.5, "emissions": 2e-6}),  # 9 evaluate only
        reporting(3e-6, fit="die", fit_rounds=(1,)),  # 10
        reporting(4e-6, fit="unwell"),  # 11
        reporting(5e-6, fit="nan"),  # 12
        reporting(6e-6, fit="broadcast"),  # 13
        Script(evaluates=False, metrics={"emissions": 7e-6}),  # 14
    ]
    return train(
        tmp_path_factory.mktemp("mixed"),
        scripts,
        processes=(9,),
        clients__min_available=2,
        clients__min_fit=2,
        clients__min_evaluate=2,
        emissions__loopback_clients="separate",
    )


def test_a_mixed_fleet_trains_to_the_end(mixed: Training) -> None:
    """No kind of client ends the run; rounds with failures are partial."""
    assert mixed.outcome.exit_code == 0
    assert mixed.run.status == "completed"
    assert [row.status for row in mixed.rounds] == ["completed", "partial", "partial"]


@pytest.mark.parametrize(
    ("node", "outcome", "rejection"),
    [
        ("1", "reported", None),
        ("2", "missing", None),
        ("3", "rejected", "not_finite"),
        ("4", "rejected", "not_finite"),
        ("5", "rejected", "negative"),
        ("6", "rejected", "not_a_number"),
        ("7", "rejected", "not_a_number"),
        ("8", "rejected", "implausible"),
        ("9", "missing", None),
        ("10", "failed", None),
        ("11", "failed", None),
        ("12", "failed", None),
        ("13", "failed", None),
        ("14", "reported", None),
    ],
)
def test_each_client_of_the_mixed_fleet_has_its_outcome(
    mixed: Training, node: str, outcome: str, rejection: str | None
) -> None:
    """Missing, rejected, failed and reported are told apart, and a rejection has its reason."""
    record = mixed.round(1)
    assert outcomes(record)[node][0] == outcome
    reasons = {r.node_id: r.rejection for r in record.reports if r.phase == "train"}
    assert reasons.get(node) == rejection


@pytest.mark.parametrize(
    ("node", "words"),
    [("10", "connection"), ("11", "told to"), ("12", "NaN"), ("13", "shape")],
)
def test_a_failed_client_has_a_reason_one_can_read(mixed: Training, node: str, words: str) -> None:
    """What is known of a failure stands in the record."""
    reason = outcomes(mixed.round(1))[node][1]
    assert reason is not None
    assert words.lower() in reason.lower()


def test_the_mixed_fleets_figures_are_sums_of_what_was_accepted(mixed: Training) -> None:
    """Accepted reports add up, failed clients' included; evaluation is counted on its own."""
    record = mixed.round(2)
    assert record.evaluate_reported == 1
    assert record.clients_emissions_kg == pytest.approx(
        1e-6 + 2e-6 + 4e-6 + 5e-6 + 6e-6 + 7e-6, rel=1e-9
    )
    assert record.reports_without_host == 6
    assert record.coverage == pytest.approx(2 / 13)


def test_the_model_holds_no_nan(mixed: Training) -> None:
    """What the bad clients sent is in no weight: the good ones add 1 a round."""
    (path,) = [p for p in mixed.outcome.artefacts if p.name == "model.npz"]
    with np.load(path, allow_pickle=False) as model:
        for layer in model.values():
            np.testing.assert_allclose(layer, 2.0, rtol=1e-6)


def test_tracking_changes_no_bit_of_the_model(tmp_path: Path) -> None:
    """Tracking on, off, and with clients that report nothing: the same file of weights."""
    scripts = [
        Script(add=0.1, examples=7, metrics={"emissions": 1e-6}),
        Script(add=0.7, examples=13),
        Script(add=-0.3, examples=29, metrics={"emissions": "nonsense"}),
    ]
    silent = [Script(add=s.add, examples=s.examples) for s in scripts]
    on = train(tmp_path / "on", scripts, rounds=3)
    off = train(tmp_path / "off", scripts, rounds=3, track_emissions=False)
    none = train(tmp_path / "none", silent, rounds=3)
    assert on.model() == off.model() == none.model()


def test_without_tracking_a_mixed_fleet_trains_and_no_figure_is_kept(tmp_path: Path) -> None:
    """Reports are taken out and discarded: empty cells, no sample with emissions or energy."""
    scraped: list[str] = []

    def scrape(_: Any, url: str) -> None:
        with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310 - our own address
            scraped.append(page.read().decode())

    scripts = [reporting(1e-6), Script(), reporting("x")]
    done = train(
        tmp_path, scripts, track_emissions=False, on_ready=scrape, telemetry__http__linger_s=0
    )
    assert done.outcome.exit_code == 0
    for row in done.rounds[1:]:
        assert row.evaluate_metrics == {"accuracy": 0.5, "loss": 0.25}
        assert row.participants == 3
        for name in (
            "reported", "missing", "rejected", "coverage", "complete", "server_energy_kwh",
            "clients_energy_kwh", "server_emissions_kg", "clients_emissions_kg",
            "total_emissions_kg", "cumulative_emissions_kg", "clients_reported_emissions_kg",
        ):  # fmt: skip
            assert getattr(row, name) is None, name
    samples = [line for line in scraped[0].splitlines() if not line.startswith("#")]
    assert any(line.startswith("fl_run_active") for line in samples)
    for line in samples:
        name = line.split("{")[0].split(" ")[0]
        assert "emissions" not in name, line
        assert "energy" not in name, line
        assert name != "fl_client_reports_total"


def test_clients_on_one_host_with_the_server_never_exceed_its_meter(tmp_path: Path) -> None:
    """Four clients on this machine claim more than the meter showed: the total is the meter's."""
    scripts = [
        Script(metrics={"emissions": 0.001, "emissions.energy_kwh": 0.005}) for _ in range(4)
    ]
    done = train(tmp_path, scripts)
    for row in done.rounds[1:]:
        assert row.host_energy_kwh
        assert row.server_energy_kwh == pytest.approx(0.0, abs=1e-18)
        assert row.clients_energy_kwh == pytest.approx(row.host_energy_kwh, rel=1e-9)


def test_two_hosts_add_up_whatever_the_examples(tmp_path: Path) -> None:
    """1 g and 3 g are 4 g."""
    scripts = [
        Script(examples=10, metrics={"emissions": 0.001, "emissions.host_id": "a" * 12}),
        Script(examples=30, metrics={"emissions": 0.003, "emissions.host_id": "b" * 12}),
    ]
    done = train(tmp_path, scripts)
    assert done.round(1).clients_emissions_kg == pytest.approx(0.004, rel=1e-9)


def test_a_hung_client_is_skipped_counted_late_and_takes_part_again(tmp_path: Path) -> None:
    """The round ends at its timeout; the late reply is energy, not model; then it is back."""
    slow = reporting(9e-6, fit="hang", fit_rounds=(1,), hang_s=1.2)
    quick = [Script(metrics={"emissions": 1e-6}) for _ in range(2)]
    done = train(
        tmp_path,
        [*quick, slow],
        rounds=12,
        round_timeout_s=0.4,
        clients__min_fit=1,
        clients__min_available=2,
        clients__min_evaluate=1,
        clients__fraction_fit=1.0,
        emissions__loopback_clients="separate",
        on_ready=_slow_down(0.15),
    )
    assert done.outcome.exit_code == 0
    first = done.round(1)
    assert outcomes(first)["3"][0] == "failed"
    assert "0.4 s" in (outcomes(first)["3"][1] or "")
    assert first.duration_s < 1.1
    late = [row.round for row in done.rounds if row.reports_late]
    assert len(late) == 1
    late_round = done.round(late[0])
    (report,) = [r for r in late_round.reports if r.late]
    assert (report.node_id, report.reported_round) == ("3", 1)
    assert first.participants[2].bytes_from is None
    (straggler,) = [p for p in late_round.participants if p.node_id == "3"]
    assert straggler.bytes_from is not None
    assert straggler.bytes_from >= (first.participants[0].bytes_from or 0) / 3, "its reply to train"
    back = [
        r.round
        for r in done.rounds
        if outcomes(done.round(r.round)).get("3", ("",))[0] == "reported"
    ]
    assert back
    assert min(back) >= late[0]


def _slow_down(seconds: float) -> Any:
    """Make each round last a while, so that the late reply finds an open round to come into."""

    def attach(server: Any, _: str) -> None:
        inner = server.strategy.strategy.strategy
        aggregate = inner.aggregate_evaluate

        def slowly(*args: Any) -> Any:
            time.sleep(seconds)
            return aggregate(*args)

        inner.aggregate_evaluate = slowly

    return attach


def test_too_few_clients_fail_rounds_and_then_the_run(tmp_path: Path) -> None:
    """After `wait_timeout_s` a round fails, after `max_failed_rounds` the run, with the reason."""
    scripts = [Script(), Script(fit="die", fit_rounds=(1,))]
    done = train(
        tmp_path,
        scripts,
        processes=(1,),
        rounds=9,
        clients__wait_timeout_s=0.3,
        clients__max_failed_rounds=2,
    )
    assert done.outcome.exit_code == 1
    assert done.run.status == "failed"
    assert [row.status for row in done.rounds] == ["completed", "partial", "failed", "failed"]
    assert "1" in (done.rounds[-1].reason or "")


def test_every_failing_client_fails_the_round_and_keeps_the_model(tmp_path: Path) -> None:
    """With no usable reply there is no new model; the one before stands and is kept."""
    scripts = [Script(fit="nan", fit_rounds=(2, 3)), Script(fit="shape", fit_rounds=(2, 3))]
    done = train(tmp_path, scripts, rounds=5, clients__max_failed_rounds=2)
    assert done.outcome.exit_code == 1
    assert [row.status for row in done.rounds[1:]] == ["completed", "failed", "failed"]
    (path,) = [p for p in done.outcome.artefacts if p.name == "model.npz"]
    with np.load(path, allow_pickle=False) as model:
        for layer in model.values():
            np.testing.assert_allclose(layer, 1.0, rtol=1e-6)


def test_a_meter_that_never_works_is_a_warning_and_unknown_figures(tmp_path: Path) -> None:
    """Training completes; server cells are empty, clients' figures are there."""
    broken = ReplayMeter(script=[MeterError("codecarbon is not installed")])
    done = train(tmp_path, [reporting(1e-6), reporting(2e-6)], meter=broken)
    assert done.outcome.exit_code == 0
    row = done.rounds[1]
    assert row.server_emissions_kg is None
    assert row.clients_emissions_kg is not None
    assert row.complete is False


def test_a_model_file_is_where_training_starts(tmp_path: Path) -> None:
    """Names, order and types of the file's layers come back in the trained model."""
    path = tmp_path / "initial.npz"
    layers: dict[str, Any] = {
        "z/first": np.zeros((2, 3), np.float32),
        "a.second": np.ones(4, np.float64),
        "count": np.array([5], np.int64),
    }
    np.savez(path, **layers)
    done = train(tmp_path, [Script(), Script()], model__initial=str(path))
    (model_path,) = [p for p in done.outcome.artefacts if p.name == "model.npz"]
    with np.load(model_path, allow_pickle=False) as model:
        assert list(model.files) == list(layers)
        for name, layer in layers.items():
            assert model[name].dtype == layer.dtype
            np.testing.assert_allclose(model[name], layer + 2, rtol=1e-6)


def test_any_client_that_has_a_model_may_give_it(tmp_path: Path) -> None:
    """The first to connect has none; the second is asked."""
    done = train(tmp_path, [Script(model=None), Script()], rounds=1)
    assert done.outcome.exit_code == 0


def test_without_any_model_the_run_fails_and_says_what_to_set(tmp_path: Path) -> None:
    """No file and no client with a model: the message names the option."""
    scripts = [Script(model=None), Script(model=None)]
    done = train(tmp_path, scripts, round_timeout_s=2)
    assert done.outcome.exit_code == 1
    assert "model.initial" in (done.run.reason or "")
