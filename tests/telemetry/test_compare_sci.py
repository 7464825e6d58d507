"""Runs side by side, and grams per functional unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.analysis.compare import Comparison, compare, pareto
from telemetry.analysis.sci import UNIT_WORDS, UNITS, Examples, Score, examples_of, scores
from telemetry.analysis.value import value_of
from telemetry.domain import RoundRecord, RoundSummary, RunTotals, StoredRun
from telemetry.testing import FACTORS, START, make_participant, make_round, make_run


def a_run(
    run_id: str, records: Sequence[RoundRecord], **info: Any
) -> tuple[StoredRun, list[RoundSummary]]:
    """A completed run as a store gives it."""
    totals, rows = RunTotals(), []
    for record in records:
        totals = totals.plus(record.summary())
        rows.append(record.summary(totals.total_emissions_kg))
    run = StoredRun(
        info=make_run(run_id, **info), status="completed", reason=None, ended_at=START,
        owner=None, last_seen_at=START, totals=totals,
    )  # fmt: skip
    return run, rows


def reached(accuracy: float, kwh: float, **facts: Any) -> list[RoundRecord]:
    """Two rounds that come to this accuracy at that much energy."""
    return [
        make_round(n, server_kwh=kwh / 2, evaluate_metrics={"accuracy": a}, **facts)
        for n, a in ((1, accuracy / 2), (2, accuracy))
    ]


def on_front(compared: Comparison) -> list[str]:
    """Ids of the runs on the front."""
    return [c.run.run_id for c in compared.contenders if c.on_front]


def test_the_front_is_what_no_other_run_beats() -> None:
    """Less carbon or a better metric; a run without a total is on no front."""
    runs = [
        a_run("cheap", reached(0.80, 0.001)),
        a_run("good", reached(0.90, 0.003)),
        a_run("neither", reached(0.80, 0.002)),
        a_run("unknown", [make_round(1, server_kwh=None, evaluate_metrics={"accuracy": 0.99})]),
    ]
    compared = compare(runs, "accuracy", target=0.85)
    assert on_front(compared) == ["cheap", "good"]
    assert [c.comparable for c in compared.contenders] == [True, True, True, False]
    assert [c.reached and c.reached.round for c in compared.contenders] == [None, 2, None, 1]
    assert on_front(compare(runs, "accuracy", lower_is_better=True)) == ["cheap"]


@given(st.lists(st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_the_front_beats_all_the_others(points: list[tuple[int, int] | None]) -> None:
    """Nobody on it beats another on it; everybody known off it is beaten by somebody on it."""
    front = pareto(points)
    known = [(p, f) for p, f in zip(points, front, strict=True) if p is not None]
    assert not any(f for p, f in zip(points, front, strict=True) if p is None)
    for point, is_on in known:
        better = [o for o, f in known if f and o != point and o[0] <= point[0] and o[1] <= point[1]]
        assert bool(better) != is_on


def test_differences_that_make_a_comparison_unfair_are_named() -> None:
    """Coverage, scope, sensor, intensity, PUE: each only where the runs differ."""
    alike = compare([a_run("a", reached(0.8, 0.1)), a_run("b", reached(0.9, 0.2))], "accuracy")
    assert alike.differences == {}
    odd = replace(
        FACTORS, server_scope="allocation", server_sensor="rapl", pue=1.4,
        server_carbon_intensity_g_per_kwh=56.0,
    )  # fmt: skip
    runs = [
        a_run("a", reached(0.8, 0.1, clients={"x": 0.001, "y": 0.001})),
        a_run("b", reached(0.8, 0.1, clients={"x": 0.001, "y": "missing"}, factors=odd)),
    ]
    differences = compare(runs, "accuracy").differences
    assert set(differences) == {"coverage", "scope", "sensor", "intensity", "PUE"}
    assert differences["coverage"] == {"a": "100% of reports came", "b": "50% of reports came"}
    assert differences["intensity"]["b"].startswith("56 g/kWh")


def test_what_was_not_tracked_is_not_a_coverage_of_nothing() -> None:
    """Where reports are thrown away unread, nobody failed to send one."""
    runs = [
        a_run("a", reached(0.8, 0.1, clients={"x": 0.001})),
        a_run("b", reached(0.8, 0.1, clients={"x": "failed"}, tracked=False, laps=())),
    ]
    differences = compare(runs, "accuracy").differences
    assert differences["coverage"] == {"a": "100% of reports came", "b": "not tracked"}
    assert differences["server metered"] == {"a": "all rounds", "b": "not tracked"}


# --- SCI -----------------------------------------------------------------------------------------


def by_unit(found: Sequence[Score]) -> dict[str, Score]:
    """Scores by their unit."""
    return {score.unit: score for score in found}


def test_scores_by_hand() -> None:
    """12 g over 2 rounds, 3 trainings that did not fail, 40 points, 3,000 examples."""
    records = [
        make_round(0, server_kwh=0.010, factors=replace(FACTORS, server_carbon_intensity_g_per_kwh=100.0)),
        make_round(1, server_kwh=None, clients={"a": 0.005, "b": 0.004}, evaluate_metrics={"accuracy": 0.4}),
        make_round(2, server_kwh=None, clients={"a": 0.002, "b": "failed"}, evaluate_metrics={"accuracy": 0.8}),
    ]  # fmt: skip
    run, rows = a_run("a", records)
    value = value_of(rows, "accuracy")
    found = by_unit(
        scores(rows, run.totals.total_emissions_kg, value, Examples(count=3000, unknown=0))
    )
    assert list(found) == list(UNITS) == list(UNIT_WORDS)
    expected = {"run": (1, 12), "round": (2, 6), "client-round": (3, 4),
                "point": (40, 0.3), "1000-examples": (3, 4)}  # fmt: skip
    for unit, (count, grams) in expected.items():
        assert found[unit].count == pytest.approx(count), unit
        assert found[unit].g_per_unit == pytest.approx(grams), unit


def test_a_score_that_cannot_be_told_says_why() -> None:
    """No emissions, no round, no points, no examples: never 0, never a division."""
    unknown = by_unit(scores([], None, None, None))
    assert [s.g_per_unit for s in unknown.values()] == [None] * len(UNITS)
    assert unknown["run"].reason == "no emissions are known"
    assert unknown["1000-examples"].reason == "the run keeps no rows of its clients"
    none_gained = value_of(
        [make_round(1, evaluate_metrics={"accuracy": 0.4}).summary()], "accuracy"
    )
    nothing = by_unit(scores([], 0.001, none_gained, Examples(count=10, unknown=2)))
    assert nothing["round"].reason == "there was none"
    assert nothing["point"].reason == "there was none"
    assert nothing["1000-examples"].reason == "unknown for 2 trainings of a client"
    assert nothing["run"].g_per_unit == 1.0
    assert by_unit(scores([], 0.0, None, None))["run"].g_per_unit == 0.0


def test_examples_are_those_of_clients_that_trained() -> None:
    """A failed client's do not count; an unknown number is not 0."""
    trained = make_participant("a")
    parts = [
        trained,
        make_participant("b", "missing"),
        make_participant("c", "failed"),
        replace(trained, node_id="d", examples=None),
        replace(trained, node_id="e", train=False),
    ]
    assert examples_of(parts) == Examples(count=20, unknown=1)
