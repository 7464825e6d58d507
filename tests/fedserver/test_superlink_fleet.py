"""Every kind of client over a real SuperLink: under the ready ServerApp, and under a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from telemetry.domain import RoundRecord, StoredRun
from telemetry.store import open_store
from tests.fedserver.odd_clients import KINDS, examples_of
from tests.fedserver.own_server_app import ROUNDS
from tests.fedserver.superlink import Federation

pytestmark = pytest.mark.slow

REJECTIONS = {
    "NaN": "not_finite", "infinite": "not_finite", "negative": "negative",
    "text": "not_a_number", "true": "not_a_number", "1e308": "implausible",
}  # fmt: skip
SPOILERS = ("NaN model", "broadcastable")
"""Only a guard stands these: Flower's own FedAvg would average them, or end the run."""
PROJECT = """
[project]
name = "fleet"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "test"

[tool.flwr.app.components]
serverapp = "{server}"
clientapp = "tests.fedserver.odd_clients:app"

[tool.flwr.app.config]
{config}
"""


def app(folder: Path, server: str, **config: object) -> Path:
    """A Flower App of these two components."""
    folder.mkdir()
    (folder / "fleet").mkdir()
    (folder / "fleet" / "__init__.py").touch()
    lines = [f"{k.replace('__', '.')} = {_toml(v)}" for k, v in config.items()]
    text = PROJECT.format(server=server, config="\n".join(lines))
    (folder / "pyproject.toml").write_text(text)
    return folder


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A SuperLink and a SuperNode for each kind."""
    folder = tmp_path_factory.mktemp("fleet")
    with Federation(folder, [f"partition-id={number}" for number in range(len(KINDS))]) as all_:
        yield all_


def recorded(url: str) -> tuple[StoredRun, list[RoundRecord]]:
    """The one run of a store and its rounds from 1 on."""
    with closing(open_store(url)) as store:
        (run,) = store.runs()
        return run, [store.round(run.run_id, n) for n in range(1, ROUNDS + 1)]


def assert_outcomes(record: RoundRecord, failed: int) -> None:
    """Each kind has its own; whoever failed to train is known by the number of them."""
    kinds = {examples_of(kind): kind for kind in KINDS}
    found = {kinds[p.examples]: p.outcome for p in record.participants if p.examples}
    for kind in KINDS:
        if kind == "raises" or (kind in SPOILERS and found[kind] == "failed"):
            continue
        expected = "rejected" if kind in REJECTIONS else "reported"
        if kind in ("silent", "evaluate only"):
            expected = "missing"
        assert found[kind] == expected, kind
    examples = {p.node_id: p.examples for p in record.participants}
    assert {
        kinds[examples[r.node_id] or 0]: r.rejection for r in record.reports if r.rejection
    } == REJECTIONS
    assert record.outcome_count("failed") == failed
    assert len(record.trained) == len(KINDS)
    assert record.evaluate_reported == 1
    assert record.reports_without_host == 4  # three bare ones from training, one from evaluation
    # Bare 1, ours 2, evaluation 3, and what the spoilers used, whatever became of their models.
    assert record.clients_emissions_kg == pytest.approx((1 + 2 + 3 + 5 + 6) * 1e-6, rel=1e-9)


def test_the_ready_server_app_stands_every_kind(federation: Federation, tmp_path: Path) -> None:
    """Outcomes, rejections and sums of a `fedserver run`; the model is that of the good clients."""
    initial = tmp_path / "initial.npz"
    np.savez(initial, layer=np.zeros((4, 3), np.float32))
    url = f"sqlite:///{tmp_path / 'ready.db'}"
    few = len(KINDS)
    done = federation.run(
        app(
            tmp_path / "ready", "fedserver.app:app", app__spoils=True, rounds=ROUNDS,
            track_emissions=True, clients__min_fit=few, clients__min_evaluate=few,
            clients__min_available=few, emissions__country="ESP", emissions__server_scope="machine",
            model__initial=initial, model__output_dir=tmp_path / "runs", telemetry__database_url=url,
            telemetry__http__port=0, telemetry__http__linger_s=0,
        )
    )  # fmt: skip
    assert done["status"] == "finished:completed", federation.log_of(done)
    run, records = recorded(url)
    assert run.status == "completed"
    for record in records:
        assert record.status == "partial"
        assert_outcomes(record, failed=3)
        reasons = sorted(p.reason or "" for p in record.participants if p.outcome == "failed")
        assert "NaN" in reasons[-2] or "NaN" in reasons[-1]
        assert any("it would broadcast" in reason for reason in reasons)
        assert record.host_energy_kwh
    (model,) = (tmp_path / "runs").glob("*/model.npz")
    with np.load(model, allow_pickle=False) as layers:
        np.testing.assert_allclose(layers["layer"], float(ROUNDS), rtol=1e-6)


def test_a_users_own_server_app_records_the_same(federation: Federation, tmp_path: Path) -> None:
    """Two lines around Flower's FedAvg, no guard: the same rows for all that it survives."""
    url = f"sqlite:///{tmp_path / 'own.db'}"
    server = "tests.fedserver.own_server_app:app"
    done = federation.run(app(tmp_path / "own", server, app__spoils=False, app__store=url))
    assert done["status"] == "finished:completed", federation.log_of(done)
    run, records = recorded(url)
    assert run.status == "completed"
    for record in records:
        assert record.status == "partial"
        assert_outcomes(record, failed=1)
        assert "emissions" not in {**record.train_metrics, **record.evaluate_metrics}
