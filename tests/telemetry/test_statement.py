"""The method statement: true for every kind of run, with the store's own figures."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.domain import GRAMS_PER_KG, RoundRecord, RunStatus
from telemetry.method import method_of
from telemetry.statement import statement
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, OWNER, RUN_ID, START, make_report, make_round
from tests import strategies
from tests.telemetry.views import a_run

SOFTWARE = {"fedserver-telemetry": "1.2.3", "flwr": "1.41.0", "codecarbon": "3.3.2"}
TRACKER = "codecarbon 3.3.2"


def a_store(*rounds: RoundRecord, end: RunStatus | None = "completed", **facts: Any) -> Any:
    """A store with that run, ended unless ``end`` is None."""
    store = InMemoryStore()
    a_run(store, *rounds, **{"software": SOFTWARE, "tracker": TRACKER, **facts})
    if end is not None:
        store.finish_run(RUN_ID, end, START, "as it\nwas told")
    return store


def told(store: InMemoryStore, country: str | None = None) -> str:
    """Its statement."""
    return statement(store.run(RUN_ID), store.rounds(RUN_ID), country)


def said(*rounds: RoundRecord, country: str | None = None, **facts: Any) -> str:
    """The statement of a run with these rounds."""
    return told(a_store(*rounds, **facts), country)


MEASURED = make_round(
    1, server_kwh=0.002, clients={"a": 0.25, "b": 0.125, "c": "missing", "d": "negative"}
)


def test_it_names_tools_figures_factors_coverage_and_seal() -> None:
    """All that a reader needs to judge the figures, and each number with its unit."""
    store = a_store(make_round(0, server_kwh=0.001), MEASURED)
    text = told(store, "Spain")
    for words in (
        f'training "digits" (run {RUN_ID}, strategy FedAvg, privacy none',
        "fedserver-telemetry 1.2.3, codecarbon 3.3.2 and Flower (flwr) 1.41.0",
        "completed after 1 of 5 planned rounds.",
        "total is 375.522 g CO2eq: 0.522 g CO2eq of the server and 375.000 g CO2eq of the clients",
        "0.003 kWh of the server",
        "its whole machine, taken with codecarbon 3.3.2 and modelled as a constant power",
        "covers 100 % of the time",
        "174 g CO2eq per kWh (Spain (ESP); made up; data of 2024)",
        "without a factor for data centre overhead (PUE 1)",
        "Of 4 requests to train 2 were answered with a report, 1 without one and 1 with a figure "
        "that was rejected",
        "(coverage 50 %)",
        "It does not contain: clients that sent no valid report",
        "energy of data transfer over networks",
        "manufacture, transport and disposal of hardware",
        f"sealed with the SHA-256 digest {store.run(RUN_ID).sha256}.",
    ):
        assert words in text, words
    assert "estimated" not in text
    assert "budget" not in text
    assert "again after an interruption" not in text


def test_its_figures_are_the_totals_of_the_store() -> None:
    """Not a sum of its own: what the totals say is what it says."""
    store = a_store(MEASURED)
    run = store.run(RUN_ID)
    other = replace(run, totals=replace(run.totals, total_emissions_kg=7.0))
    assert "measured total is 7000.000 g CO2eq" in statement(other, store.rounds(RUN_ID))


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        (
            [make_round(1, server_kwh=None, clients={"a": 0.5})],
            ["500 g CO2eq, all of the clients, for the server was not metered", "not zero",
             "the server's electricity, of which nothing was metered"],
        ),
        (
            [make_round(1, clients={"a": "missing"})],
            ["0.174 g CO2eq, all of the server, for no client reported"],
        ),
        ([make_round(1)], ["all of the server, for no client took part", "No client was asked"]),
        (
            [make_round(1, server_kwh=None, clients={"a": "missing"})],
            ["unknown, for neither the server was metered nor did any client report"],
        ),
        ([], ["unknown, for the server was not metered and no client took part"]),
    ],
)  # fmt: skip
def test_what_is_unknown_is_called_so(rounds: list[RoundRecord], words: list[str]) -> None:
    """A server without meter, a fleet that says nothing, a run without anything."""
    text = said(*rounds)
    for expected in words:
        assert expected in text, text
    if not any(row.host_energy_kwh is not None for row in rounds):
        assert "is converted with" not in text
        assert "contains: electricity of the server" not in text


def test_an_untracked_run_claims_nothing() -> None:
    """No figure, no factor, no boundary; its seal all the same."""
    text = said(make_round(1, tracked=False, laps=()), tracked=False, tracker=None)
    assert "were not recorded, neither the server's nor the clients'" in text
    assert "codecarbon" not in text
    assert " g CO2eq" not in text
    assert "kWh" not in text
    assert "SHA-256" in text


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("completed", "It completed after 1 of 5 planned rounds."),
        ("failed", "It failed after 1 of 5 planned rounds (as it was told); the figures cover"),
        ("interrupted", "It was interrupted after 1 of 5 planned rounds (as it was told)"),
        ("stopped_on_budget", "It was stopped to keep its emissions budget, after 1 of 5"),
        (None, "It had not ended when this was written, after 1 of 5 planned rounds"),
    ],
)
def test_it_says_how_the_run_ended(end: RunStatus | None, words: str) -> None:
    """And of a running one that it has no seal."""
    text = said(MEASURED, end=end)
    assert words in text
    assert ("not sealed yet" in text) is (end is None)


def test_attempts_are_not_rounds() -> None:
    """A round that was repeated was played once, and both attempts count."""
    again = make_round(2, attempt=2)
    text = said(make_round(1), make_round(2, status="interrupted"), again)
    assert "after 2 of 5 planned rounds." in text
    assert "1 repeated attempt at a round is on record" in text
    assert "(1 failed)" in said(make_round(1), make_round(2, status="failed"))


def test_a_share_of_the_machine_is_called_one() -> None:
    """With how large it was, and what is then not in the figure."""
    shared = replace(FACTORS, server_scope="allocation", pue=1.2)
    rounds = [
        make_round(n, factors=replace(shared, server_share=share)) for n, share in ((1, 0.25), (2, 0.5))
    ]  # fmt: skip
    text = said(*rounds, factors=shared)
    assert "its share of the machine by processor time and memory limit (25 % to 50 % of" in text
    assert "(PUE) of 1.2" in text
    assert "data centre overhead of the server" in text
    assert "the rest of the server's machine" in text
    assert "whole machine" not in text


def test_the_world_average_is_called_one() -> None:
    """Where nobody said which country."""
    world = replace(FACTORS, country=None, intensity_source="world average, somebody's table")
    text = said(make_round(1, factors=world), factors=world)
    assert "(the server's country was not stated; world average, somebody's table; data of" in text


def test_estimates_stand_beside_the_total() -> None:
    """With their factor and their spread, and never as a part of it."""
    estimating = replace(FACTORS, network_kwh_per_gb=0.05, impute_missing=True)
    clients: dict[str, float | str] = {"a": 0.125, "b": 0.25, "c": 0.5, "d": "missing"}
    plain = make_round(1, clients=clients, factors=estimating)
    parts = tuple(replace(part, bytes_to=10**9, bytes_from=0) for part in plain.participants)
    text = said(plain.model_copy(update={"participants": parts}), factors=estimating)
    assert "Beside the measured total and not in it, the transfer of 4 GB" in text
    assert "estimated at 34.8 g CO2eq, with 0.05 kWh per GB" in text
    assert "did not report (1 case) are estimated at 250 g CO2eq (from 150 g CO2eq to 450" in text
    nothing = said(make_round(1, clients={"a": "missing"}, factors=estimating), factors=estimating)
    assert "Data transfer could not be estimated" in nothing
    assert "no estimate was possible" in nothing


def test_marks_budget_late_reports_and_rows_that_are_not_kept() -> None:
    """Each is said where it is so."""
    marked = make_report("a", 0.5, outlier=True, host_id=None)
    late = make_report("b", 0.25, late=True, reported_round=0)
    clients: dict[str, float | str] = {"a": 0.5}
    row = make_round(1, clients=clients, reports=(marked, late), client_rows=False)
    text = said(row, client_rows=False, budget_kg=2.0, on_budget="stop")
    for words in (
        "1 accepted report, with 500 g CO2eq of the total, is marked",
        "1 accepted report names no machine and is counted in full",
        "1 report came too late for its round",
        "budget of 2000 g CO2eq, to stop before it is exceeded; the measured total is 37.51 % of it",
        "only sums and distributions are kept (in 1 of 1 round)",
    ):
        assert words in text, text


@given(data=st.data(), info=strategies.runs(run_id=RUN_ID))
def test_it_is_one_paragraph_of_plain_sentences(data: st.DataObject, info: Any) -> None:
    """Of any run: one line, no markup, no exponent, no None, and the total of the store in grams."""
    store = InMemoryStore()
    store.start_run(info, OWNER, START)
    drawn = strategies.rounds(closed=True, tracked=info.tracked)
    rounds = st.lists(drawn, max_size=3, unique_by=lambda r: (r.round, r.attempt))
    for record in data.draw(rounds):
        store.record_round(record)
    run = store.run(RUN_ID)
    text = told(store)
    own = [info.run_name, info.strategy, info.privacy, info.tracker or ""]
    own += [info.factors.intensity_source, *info.software.values()]
    ours = text
    for words in sorted((" ".join(w.split()) for w in own), key=len, reverse=True):
        ours = ours.replace(words, " ") if words else ours
    assert "\n" not in text
    assert text.endswith(".")
    assert not re.search(r"\bNone\b|[*_`#|]|\de[+-]\d|\bnan\b|\binf\b", ours), ours
    if info.tracked and run.totals.total_emissions_kg is not None:
        found = re.search(r"measured total is ([\d.]+) g CO2eq", text)
        assert found is not None
        grams = run.totals.total_emissions_kg * GRAMS_PER_KG
        assert float(found[1]) == pytest.approx(grams, rel=1e-2, abs=1e-2)


def test_the_facts_count_every_attempt() -> None:
    """As the totals do."""
    store = a_store(MEASURED, MEASURED.model_copy(update={"attempt": 2}))
    found = method_of(store.run(RUN_ID), store.rounds(RUN_ID))
    assert (found.participants, found.reported, found.missing, found.rejected) == (8, 4, 2, 2)
    assert (found.rounds_played, found.rounds_repeated, found.rounds_closed) == (1, 1, 2)
