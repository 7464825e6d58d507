"""Private trainings over real sockets: what is released, recorded, shown and kept to oneself."""

from __future__ import annotations

import io
import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest

from telemetry.exporters import FORMATS
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from tests.fedserver.clients import Script
from tests.fedserver.servers import Training, train

TWO = [Script(add=1.0, metrics={"emissions": 1e-6}), Script(add=3.0, metrics={"emissions": 2e-6})]
"""Two clients that disagree: their models are 2 × √6 apart."""
MECHANISMS = ("central-dp", "metric-privacy")


def private(folder: Path, scripts: list[Script], mechanism: str, **overrides: Any) -> Training:
    """A training with that mechanism, two clients a round."""
    given = {
        "privacy__mechanism": mechanism,
        "privacy__noise_multiplier": 0.5,
        "privacy__clipping_norm": 1.0,
        "privacy__num_sampled_clients": 2,
    }
    return train(folder, scripts, **{**given, **overrides})


def shown(done: Training) -> str:
    """Everything that is shown of a run: ``/metrics`` and every export."""
    texts = [generate_latest(metrics_registry(EmissionsCollector(done.store, None))).decode()]
    for known in FORMATS.values():
        out = io.StringIO()
        known.write(done.store, done.outcome.run_id, out)
        texts.append(out.getvalue())
    return "\n".join(texts)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_tracking_changes_no_bit_of_a_private_model(tmp_path: Path, mechanism: str) -> None:
    """Same seed, real sockets: on, off and with clients that do not report."""
    silent = [Script(add=script.add) for script in TWO]
    on = private(tmp_path / "on", TWO, mechanism)
    off = private(tmp_path / "off", TWO, mechanism, track_emissions=False)
    none = private(tmp_path / "none", silent, mechanism)
    without = train(tmp_path / "without", TWO)
    assert on.model() == off.model() == none.model()
    assert on.model() != without.model()


def test_the_distance_is_stored_and_shown_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in its table, and neither on /metrics, nor in an export, a view or a log."""
    with caplog.at_level(logging.DEBUG):
        done = private(tmp_path, TWO, "metric-privacy")
    assert done.run.info.privacy == "metric-privacy (no formal guarantee)"
    secrets: list[float] = []
    for number in (1, 2):
        noise = done.round(number).noise
        assert noise is not None
        assert noise.distance is not None
        assert noise.distance == pytest.approx(2 * 6**0.5, rel=1e-6)
        assert noise.noise_stdv == pytest.approx(0.5 / noise.distance / 2, rel=1e-12)
        secrets += [noise.distance, noise.noise_stdv]
    texts = [shown(done), "\n".join(record.getMessage() for record in caplog.records)]
    with closing(sqlite3.connect(tmp_path / "telemetry.db")) as connection:
        texts += [
            str(connection.execute(f"SELECT * FROM {view}").fetchall())
            for view in (
                "v_run",
                "v_round",
                "v_client_round",
                "v_report",
                "v_run_value",
                "rounds",
                "training_metrics",
            )
        ]
    artefacts = [path for path in done.outcome.artefacts if path.suffix != ".npz"]
    texts += [path.read_text(encoding="utf-8") for path in artefacts]
    assert len(artefacts) == 2
    for text in texts:
        assert "accuracy" in text or "FedAvg" in text or done.outcome.run_id in text
        for secret in secrets:
            assert f"{secret:.10g}"[:9] not in text
        assert "privacy_distance" not in text


def test_a_published_distance_is_a_training_metric(tmp_path: Path) -> None:
    """With publish_distance it is on /metrics and in the CSV, beside the noise."""
    done = private(tmp_path, TWO, "metric-privacy", privacy__publish_distance=True)
    for row in done.rounds[1:]:
        assert row.train_metrics["privacy_distance"] == pytest.approx(2 * 6**0.5, rel=1e-6)
        assert row.train_metrics["privacy_noise_stdv"] > 0
    text = shown(done)
    assert "train_privacy_distance,train_privacy_noise_stdv" in text
    run = done.outcome.run_id
    assert f'fl_training_metric{{name="privacy_distance",run_id="{run}",split="train"}} 4.8' in text


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_too_few_replies_fail_the_round_and_keep_the_model(tmp_path: Path, mechanism: str) -> None:
    """A client sends NaN in round 2: its failure is on record, the round's reason names privacy."""
    broken = Script(add=3.0, fit="nan", fit_rounds=(2,))
    done = private(tmp_path, [TWO[0], broken], mechanism, rounds=2)
    one = private(tmp_path / "one", [TWO[0], broken], mechanism, rounds=1)
    assert [row.status for row in done.rounds] == ["completed", "completed", "failed"]
    assert done.rounds[2].reason == "too_few_replies_for_privacy"
    assert done.round(2).noise is None
    assert [p.outcome for p in done.round(2).participants] == ["reported", "failed"]
    assert done.model() == one.model()


def test_models_all_alike_have_no_distance(tmp_path: Path) -> None:
    """Two clients that agree to the bit: no noise is enough, every round fails and says so."""
    done = private(tmp_path, [TWO[0], TWO[0]], "metric-privacy", clients__max_failed_rounds=2)
    assert done.outcome.exit_code == 1
    assert {row.reason for row in done.rounds[1:]} == {"undefined_distance_for_privacy"}


def test_a_round_waits_for_as_many_clients_as_the_noise_is_made_for(tmp_path: Path) -> None:
    """min_fit says two, the noise three: the third is waited for."""
    three = [*TWO, Script(add=5.0)]
    done = private(
        tmp_path,
        three,
        "central-dp",
        privacy__num_sampled_clients=3,
        clients__min_fit=2,
        clients__min_available=2,
        clients__fraction_fit=0.1,
    )
    assert [row.participants for row in done.rounds[1:]] == [3, 3]


def test_epsilon_reaches_record_csv_and_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It grows with each release, stands still in a round without one, and is announced at start."""
    three = [*TWO, Script(add=5.0, fit="nan", fit_rounds=(2,))]
    with caplog.at_level(logging.INFO, "fedserver"):
        done = private(
            tmp_path,
            three,
            "central-dp",
            rounds=3,
            clients__min_fit=2,
            privacy__num_sampled_clients=3,
            privacy__weights="equal",
            privacy__accounting={"delta": 1e-5, "population": 10},
            privacy__noise_multiplier=0.1,
        )
    first, second, third = (row.privacy_epsilon for row in done.rounds[1:])
    assert done.rounds[0].privacy_epsilon is None
    assert first is not None
    assert 0 < first == second
    assert third is not None
    assert third > first
    assert done.rounds[2].reason == "too_few_replies_for_privacy"
    assert done.run.info.privacy == "central-dp (accounted at delta 1e-05)"
    text = shown(done)
    assert f'fl_privacy_epsilon{{run_id="{done.outcome.run_id}"}} {third!r}' in text
    assert f",{third!r}," in text
    messages = [record.getMessage() for record in caplog.records]
    assert "privacy: 3 rounds come to epsilon 231 at delta 1e-05" in messages
    assert any("formally private and practically not" in message for message in messages)


def test_what_is_not_promised_is_said_at_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and in the run's record; and nobody is told where all is well."""
    with caplog.at_level(logging.WARNING, "fedserver"):
        weighted = private(tmp_path / "a", TWO, "central-dp", rounds=1)
        said = [record.getMessage() for record in caplog.records]
        caplog.clear()
        equal = private(
            tmp_path / "b", TWO, "central-dp", rounds=1, privacy__weights="equal", seed=None
        )
    assert any("no formal guarantee: privacy.weights examples" in message for message in said)
    assert any("seed 1 makes the noise predictable" in message for message in said)
    assert not [record for record in caplog.records if "privacy" in record.getMessage()]
    assert weighted.run.info.privacy == "central-dp (no formal guarantee)"
    assert equal.run.info.privacy == "central-dp"


def test_noise_differs_from_run_to_run_without_a_seed(tmp_path: Path) -> None:
    """Two runs of the same clients end in different models."""
    models = []
    for name in "ab":
        done = private(tmp_path / name, TWO, "central-dp", rounds=1, seed=None)
        (path,) = [p for p in done.outcome.artefacts if p.name == "model.npz"]
        with np.load(path, allow_pickle=False) as model:
            models.append({key: model[key] for key in model.files})
    assert any(not np.array_equal(models[0][key], models[1][key]) for key in models[0])
