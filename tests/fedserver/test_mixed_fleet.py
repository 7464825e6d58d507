"""The mixed fleet of `test_training`, without a guard: under a user's own ``Strategy.start``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.domain import RoundRecord, RoundSummary
from telemetry.store.memory import InMemoryStore
from tests.fedserver.clients import Script
from tests.fedserver.servers import train
from tests.fedserver_hooks.fakes import LocalGrid, Reply, fails, model, recorder, trains

ROUNDS = 2
REFUSAL = "the client's status is FIT_NOT_IMPLEMENTED: told to fail"
"""What `fedserver run` makes of a client that says so; here the reason that came with the error."""


def also_evaluates(train: Reply, **metrics: float) -> Reply:
    """Trains like that; its evaluation has these metrics as well."""

    def answer(message: Message) -> Message:
        if message.metadata.message_type == "train":
            return train(message)
        numbers: dict[str, Any] = {"num-examples": 10, "accuracy": 0.51, **metrics}
        return Message(RecordDict({"metrics": MetricRecord(numbers)}), reply_to=message)

    return answer


@dataclass(frozen=True)
class Kind:
    """One kind of client, as it comes over either way."""

    script: Script
    """As a client of ``fl.client.start_client``."""
    reply: Reply
    """As a ClientApp."""


OWN: dict[str, Any] = {
    "emissions_kg": 2e-6,
    "energy_kwh": 1e-5,
    "host_id": "a" * 12,
    "country": "ESP",
}
"""Our record, as the helper writes it."""
FLAT = {"emissions": 2e-6} | {f"emissions.{k}": v for k, v in OWN.items() if k != "emissions_kg"}

KINDS = {
    "bare": Kind(Script(metrics={"emissions": 1e-6}), trains(emissions=1e-6)),
    "record": Kind(Script(metrics=FLAT), trains(**OWN)),
    "silent": Kind(Script(), trains()),
    "NaN": Kind(Script(metrics={"emissions": math.nan}), trains(emissions=math.nan)),
    "negative": Kind(Script(metrics={"emissions": -1.0}), trains(emissions=-1.0)),
    "text": Kind(Script(metrics={"emissions": "0.5"}), trains(emissions_kg="0.5")),
    "1e308": Kind(Script(metrics={"emissions": 1e308}), trains(emissions=1e308)),
    "evaluate only": Kind(
        Script(evaluate_metrics={"accuracy": 0.5, "emissions": 3e-6}),
        also_evaluates(trains(), emissions=3e-6),
    ),
    "error": Kind(Script(fit="status"), fails(REFUSAL)),  # an error of Flower's holds no report
}
"""In the order of their nodes, from 1."""


def what_happened(record: RoundRecord) -> dict[str, Any]:
    """All of a round but ids, times and the server's own energy."""
    return {
        "status": record.status,
        "participants": [(p.node_id, p.outcome, p.reason) for p in record.participants],
        "reports": sorted((r.node_id, r.phase, r.rejection or "", r.late) for r in record.reports),
        "clients_emissions_kg": record.clients_emissions_kg,
        "clients_energy_kwh": record.clients_energy_kwh,
        "coverage": record.coverage,
        "reports_without_host": record.reports_without_host,
    }


def counts(row: RoundSummary) -> tuple[Any, ...]:
    """Who did what, as the tables and exports have it."""
    return (
        row.participants, row.reported, row.missing, row.rejected, row.failed,
        row.evaluate_reported, row.complete,
    )  # fmt: skip


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The fleet under ``fedserver run``."""
    done = train(
        tmp_path_factory.mktemp("configured"),
        [kind.script for kind in KINDS.values()],
        rounds=ROUNDS,
        emissions__loopback_clients="separate",  # a SuperLink knows nobody's address
    )
    assert done.outcome.exit_code == 0
    return done


class Own:
    """A user's own ServerApp: Flower's FedAvg, its `start`, and our one call around it."""

    def __init__(self, way: str) -> None:
        self.store = InMemoryStore()
        self.strategy = (
            EmissionsStrategy.wrap(
                FedAvg(), store=self.store, country="ESP", server_scope="machine"
            )
            if way == "wrap"
            else EmissionsStrategy(FedAvg(), recorder(self.store))
        )
        grid = LocalGrid({n: kind.reply for n, kind in enumerate(KINDS.values(), 1)})
        self.result = self.strategy.start(grid, model(), num_rounds=ROUNDS)

    @property
    def run_id(self) -> str:
        """Of its run."""
        return self.strategy.recorder.run.run_id


@pytest.fixture(scope="module", params=["wrap", "recorder"])
def own(request: pytest.FixtureRequest) -> Own:
    """The fleet under a user's own strategy, by the two-line form and with a recorder of one's own."""
    return Own(request.param)


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_a_users_own_server_records_the_mixed_fleet_as_ours_does(
    configured: Any, own: Own, number: int
) -> None:
    """Same outcomes, reasons, rejections, sums and coverage in every round, without any guard."""
    ours = configured.round(number)
    theirs = own.store.round(own.run_id, number)
    assert what_happened(theirs) == what_happened(ours)
    assert [counts(row) for row in own.store.rounds(own.run_id)] == [
        counts(row) for row in configured.rounds
    ]


@pytest.mark.parametrize(
    ("kind", "outcome", "rejection"),
    [
        ("bare", "reported", None),
        ("record", "reported", None),
        ("silent", "missing", None),
        ("NaN", "rejected", "not_finite"),
        ("negative", "rejected", "negative"),
        ("text", "rejected", "not_a_number"),
        ("1e308", "rejected", "implausible"),
        ("evaluate only", "missing", None),
        ("error", "failed", None),
    ],
)
def test_each_client_has_its_outcome_in_a_users_own_server(
    own: Own, kind: str, outcome: str, rejection: str | None
) -> None:
    """Reported, missing, rejected and failed are told apart, a rejection has its reason."""
    record = own.store.round(own.run_id, 1)
    node = str(list(KINDS).index(kind) + 1)
    assert {p.node_id: p.outcome for p in record.participants}[node] == outcome
    assert {r.node_id: r.rejection for r in record.reports if r.phase == "train"}.get(
        node
    ) == rejection
    assert record.evaluate_reported == 1


def test_the_mixed_fleet_trains_to_the_end_and_no_report_reaches_flowers_means(own: Own) -> None:
    """Flower's own FedAvg, which raises where metrics differ, sees the same keys from everybody."""
    assert own.store.run(own.run_id).status == "completed"
    assert own.strategy.recorder.errors == {}
    for layer, before in zip(own.result.arrays.values(), model().values(), strict=True):
        np.testing.assert_allclose(layer.numpy(), before.numpy() + ROUNDS, rtol=1e-5)
    for number in range(1, ROUNDS + 1):
        assert set(own.result.train_metrics_clientapp[number]) == {"accuracy"}
        assert "emissions" not in own.result.evaluate_metrics_clientapp[number]
