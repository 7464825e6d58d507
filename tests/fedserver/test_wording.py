"""How figures are told: what was measured, what is estimated beside it, and what looks odd."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedserver.cli import app
from fedserver.wording import (
    budget_words,
    client_intensity_words,
    closing_line,
    mark_words,
    round_line,
)
from telemetry.domain import RoundRecord
from telemetry.store import Store, open_store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import (
    FACTORS,
    OWNER,
    RUN_ID,
    START,
    make_report,
    make_round,
    make_run,
    pseudonym_of,
)
from tests.fedserver.clients import Script
from tests.fedserver.servers import train

ESTIMATING = replace(FACTORS, network_kwh_per_gb=0.06, impute_missing=True)


def estimated(number: int = 1, **facts: Any) -> RoundRecord:
    """A round with 38 MB of messages and one silent client of four."""
    clients: dict[str, float | str] = {"a": 0.001, "b": 0.002, "c": 0.004, "d": "missing"}
    record = make_round(number, server_kwh=None, clients=clients, factors=ESTIMATING, **facts)
    counted = [replace(p, bytes_to=5_000_000, bytes_from=4_500_000) for p in record.participants]
    return record.model_copy(update={"participants": tuple(counted)})


def odd(number: int = 1) -> RoundRecord:
    """A round in which one report looks cumulative and two are outliers."""
    marks: dict[str, dict[str, bool]] = {
        "a": {"looks_cumulative": True}, "b": {"outlier": True}, "c": {"outlier": True}
    }  # fmt: skip
    reports = tuple(make_report(name, 0.001, **flags) for name, flags in marks.items())
    return make_round(number, clients=dict.fromkeys("abc", 0.001), reports=reports)


def closing(store: Store) -> str:
    """The closing line of the run."""
    return closing_line(store.run(RUN_ID), list(store.rounds(RUN_ID)), "Spain")


def stored(*rounds: RoundRecord, store: Store | None = None, **facts: Any) -> Store:
    """A run of these rounds."""
    store = store or InMemoryStore()
    store.start_run(make_run(**facts), OWNER, START)
    for record in rounds:
        store.record_round(record)
    return store


def test_a_round_tells_its_estimates_apart() -> None:
    """The total is what was measured; each estimate says of what and how."""
    line = round_line(estimated(), 5, ())
    assert "7.00 g (server unknown, clients 7.00), coverage 3/4" in line
    assert line.endswith(
        ", + 0.40 g estimated for communication (allocated, estimated), "
        "+ 2.00 g (1.20-3.60) imputed for 1 silent client"
    )


def test_a_round_without_estimates_says_nothing_of_them() -> None:
    """Neither where they are off, nor where nobody is silent."""
    plain = make_round(1, clients={"a": 0.001, "b": 0.001, "c": 0.001, "d": "missing"})
    nobody = make_round(
        1, clients=dict.fromkeys("abc", 0.001), factors=replace(FACTORS, impute_missing=True)
    )
    for record in (plain, nobody):
        line = round_line(record, 5, ())
        assert "estimated" not in line
        assert "imputed" not in line


def test_the_closing_line_adds_the_rounds_up() -> None:
    """Both rounds' estimates, beside the total."""
    line = closing(stored(estimated(1), estimated(2)))
    assert line.startswith("total 14.00 g = server unknown + clients 14.00 g (")
    assert line.endswith(
        ") + 0.79 g estimated for communication (allocated, estimated) "
        "+ 4.00 g (2.40-7.20) imputed for silent clients (2 in 2 rounds)"
    )


def test_what_cannot_be_imputed_is_said() -> None:
    """Switched on, somebody silent, and too few reports to say anything of them."""
    clients: dict[str, float | str] = {"a": 0.001, "b": 0.002, "d": "missing"}
    few = make_round(1, clients=clients, factors=replace(FACTORS, impute_missing=True))
    assert closing(stored(few)).endswith(
        "(nothing imputed: fewer than three reports in each round)"
    )


def test_marks_are_named() -> None:
    """Who it is, by pseudonym; what looks odd counts, and how much of the total it is."""
    a, b, c = (pseudonym_of(name) for name in "abc")
    outliers = ", ".join(sorted((b, c)))
    assert mark_words(odd().reports) == [
        f"1 report looks cumulative: {a}",
        f"2 outliers: {outliers}",
    ]
    assert f"1 report looks cumulative: {a}, 2 outliers: {outliers}" in round_line(odd(), 5, ())
    assert "3 reports look odd, 3.00 g of the total" in closing(stored(odd()))
    many = [make_report(str(n), outlier=True) for n in range(10)]
    assert mark_words(many)[0].count("c-") == 3


def test_the_clients_intensities_are_told_with_who_stated_them() -> None:
    """Those of the server's machine count at the server's; bare ones with nobody knows which."""
    said = client_intensity_words(
        [
            make_report("a", 0.1, carbon_intensity_g_per_kwh=56.04),
            make_report("b", 0.1, carbon_intensity_g_per_kwh=412.0),
            make_report("c", 0.1),
            make_report("d", 0.1, on_server_host=True, carbon_intensity_g_per_kwh=999.0),
            make_report("e", "negative"),
        ]
    )
    assert said == (
        "intensity: the server's for 1 report from its own machine, 56.04 to 412 gCO2eq/kWh as "
        "2 reports stated, not stated by 1 report, which count as sent"
    )
    assert client_intensity_words([make_report("e", "negative")]) is None


def test_a_budget_is_told_with_its_share() -> None:
    """Nothing for a run without one; unknown is not 0 %."""
    round_of_4_g = make_round(1, server_kwh=None, clients={"a": 0.004})
    assert budget_words(stored(round_of_4_g).run(RUN_ID)) == []
    assert "budget 12.00 g: 33 % used" in closing(stored(round_of_4_g, budget_kg=0.012))
    silent = stored(make_round(1, server_kwh=None, clients={"a": "missing"}), budget_kg=0.012)
    assert budget_words(silent.run(RUN_ID)) == ["budget 12.00 g: nothing is known to be used"]


def test_runs_show_tells_estimates_marks_and_budget(tmp_path: Path) -> None:
    """With the factor, the clients by name, and how much of the budget is used."""
    url = f"sqlite:///{tmp_path / 't.db'}"
    store = stored(estimated(1), odd(2), store=open_store(url), factors=ESTIMATING, budget_kg=0.1)
    store.close()
    shown = CliRunner().invoke(app, ["runs", "show", RUN_ID, "--store", url])
    assert shown.exit_code == 0, shown.output
    text = re.sub(r"\s+", " ", shown.stdout)
    assert "+ 0.40 g estimated for communication (allocated, estimated)" in text
    assert "estimates communication: bytes × 0.06 kWh/GB (10^9 bytes) × the server's" in text
    assert "estimates silent clients: median g per example of those who reported" in text
    assert f"marks 1 report looks cumulative: {pseudonym_of('a')}, 2 outliers: " in text
    assert "budget 100.00 g: 10 % used" in text


def test_a_training_estimates_beside_its_total(tmp_path: Path) -> None:
    """Over sockets: three report, one is silent; the measured figures are those of the reports."""
    fleet = [Script(metrics={"emissions": n * 1e-6}, examples=10) for n in (1, 2, 3)]
    training = train(
        tmp_path,
        [*fleet, Script(examples=20)],
        emissions__loopback_clients="separate",
        emissions__network_kwh_per_gb=0.06,
        emissions__impute_missing=True,
    )
    row = training.rounds[1]
    assert row.clients_emissions_kg == pytest.approx(6e-6, rel=1e-9)
    assert row.imputed_emissions_kg == pytest.approx(4e-6, rel=1e-9), "0.2 mg an example"
    assert row.imputed_clients == 1
    assert row.bytes_to_clients is not None
    assert row.bytes_from_clients is not None
    assert row.communication_emissions_kg_estimated == pytest.approx(
        (row.bytes_to_clients + row.bytes_from_clients) / 1e9 * 0.06
        * row.factors.server_carbon_intensity_g_per_kwh / 1000.0,
        rel=1e-9,
    )  # fmt: skip
    assert "imputed for silent clients (2 in 2 rounds)" in training.outcome.closing


def test_a_training_without_client_rows_keeps_none(tmp_path: Path) -> None:
    """``telemetry.client_rows: false``: sums and distributions, and no row of any client."""
    fleet = [Script(metrics={"emissions": 1e-6})] * 2
    training = train(tmp_path, fleet, rounds=1, telemetry__client_rows=False)
    assert not training.run.info.client_rows
    assert training.rounds[1].reported == 2
    assert list(training.store.reports(training.outcome.run_id)) == []
    assert list(training.store.participants(training.outcome.run_id)) == []


def test_reports_that_could_be_of_any_machine_are_said() -> None:
    """They count in full, though their machine may be in the total already."""
    bare = make_report("a", 0.5, host_id=None)
    alone = stored(make_round(1, clients={"a": 0.5}, reports=(bare,)))
    assert "; 1 report names no machine and counts in full;" in closing(alone).replace("(", "; ")
    two = stored(
        make_round(1, clients={"a": 0.5}, reports=(bare,)),
        make_round(2, clients={"a": 0.5}, reports=(replace(bare, reported_round=2),)),
    )
    assert "2 reports name no machine and count in full" in closing(two)
    assert "names no machine" not in closing(stored(make_round(1, clients={"a": 0.5})))
