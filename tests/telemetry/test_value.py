"""Grams per point, grams to a target: on courses that can be checked by hand."""

from __future__ import annotations

from datetime import timedelta
from math import fsum, isfinite
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.analysis.value import falls, marginal_g_per_point, measured_kg, value_of
from telemetry.domain import RoundSummary, RunTotals
from telemetry.testing import ROUND_S, START, make_round


def course(
    *rounds: tuple[float | None, float | None], metric: str = "accuracy", first: int = 1
) -> list[RoundSummary]:
    """Rounds by (value, grams); None is a round without a value, or without a figure."""
    rows, spent = [], 0.0
    for number, (value, grams) in enumerate(rounds, first):
        record = make_round(number, evaluate_metrics={} if value is None else {metric: value})
        spent += grams or 0.0
        rows.append(record.summary(None if grams is None else spent / 1000))
    return rows


def marginals(rows: list[RoundSummary], metric: str = "accuracy") -> list[float | None]:
    """Of each round with a value."""
    value = value_of(rows, metric)
    return [] if value is None else [step.marginal_g_per_point for step in value.steps]


def test_a_new_best_costs_what_was_emitted_since_the_last_one() -> None:
    """0.60 → 0.70 for 5 g; a round that falls back gives its grams to the next new best."""
    rows = course((0.60, 3.0), (0.70, 5.0), (0.65, 2.0), (0.72, 4.0))
    assert marginals(rows) == [
        None,
        pytest.approx(5.0 / 10),
        None,
        pytest.approx((2.0 + 4.0) / 2),
    ]
    assert marginal_g_per_point(rows, "accuracy") == pytest.approx(3.0)
    assert marginal_g_per_point(rows[:3], "accuracy") is None
    assert marginal_g_per_point(rows[:1], "accuracy") is None


def test_the_average_is_from_the_first_value_to_the_best() -> None:
    """What was emitted up to the first value bought no points that anyone can count."""
    value = value_of(course((0.60, 100.0), (0.70, 5.0), (0.80, 15.0), (0.75, 50.0)), "accuracy")
    assert value is not None
    assert (value.best.round, value.best.value) == (3, 0.80)
    assert value.points == pytest.approx(20)
    assert value.average_g_per_point == pytest.approx(20.0 / 20)
    assert value.last_gain == value.best


def test_a_target_costs_all_that_was_emitted_until_it_was_reached() -> None:
    """From the run's start to the first round at the target, or better; a later fall is no matter."""
    value = value_of(course((0.60, 3.0), (0.90, 5.0), (0.80, 2.0)), "accuracy")
    assert value is not None
    reached = value.reaching(0.85)
    assert reached is not None
    assert reached.round == 2
    assert reached.spent_kg == pytest.approx(0.008)
    assert value.reaching(0.90) == reached
    assert value.reaching(0.91) is None


def test_a_loss_is_better_the_lower_it_is() -> None:
    """By its name, or because it is said."""
    falling = course((0.9, 1.0), (0.5, 4.0), (0.7, 1.0), metric="loss")
    assert marginals(falling, "loss") == [None, pytest.approx(4.0 / 40), None]
    value = value_of(falling, "loss")
    assert value is not None
    assert value.best.value == 0.5
    assert (value.reaching(0.6) or value.best).round == 2
    assert value.reaching(0.4) is None
    odd = value_of(course((0.9, 1.0), (0.5, 4.0)), "accuracy", lower_is_better=True)
    assert odd is not None
    assert odd.best.value == 0.5


@pytest.mark.parametrize(
    "name",
    ["loss", "val_loss", "loss_centralized", "error", "error-rate", "test.mse", "RMSE", "valLoss",
     "perplexity", "cross_entropy", "log loss"],
)  # fmt: skip
def test_names_that_fall(name: str) -> None:
    """A word of the name tells."""
    assert falls(name)


@pytest.mark.parametrize("name", ["accuracy", "f1", "auc", "lossless", "closs", "terror", "R2", ""])
def test_names_that_rise(name: str) -> None:
    """A part of a word does not."""
    assert not falls(name)


def test_what_is_unknown_has_no_price() -> None:
    """A round without figure or value, a run without the metric, a gain within rounding."""
    assert marginals(course((0.5, None), (0.6, 2.0))) == [None, None]
    rows = course((0.5, 1.0), (None, 2.0), (0.6, 3.0))
    assert marginals(rows) == [None, pytest.approx(0.5)]
    assert marginal_g_per_point(rows[:2], "accuracy") is None
    assert value_of(rows, "f1") is None
    assert marginal_g_per_point([], "accuracy") is None
    assert 0.1 + 0.2 > 0.3
    assert marginals(course((0.3, 1.0), (0.1 + 0.2, 1.0))) == [None, None]


def test_a_run_that_nobody_measured_has_no_price() -> None:
    """No meter, silent clients: a set-up that nobody took part in counts 0, which is no knowledge."""
    facts: dict[str, Any] = {"server_kwh": None, "clients": {"a": "missing"}}
    records = [
        make_round(0, server_kwh=None),
        *(make_round(n, evaluate_metrics={"accuracy": n / 10}, **facts) for n in (1, 2)),
        make_round(3, server_kwh=0.001, evaluate_metrics={"accuracy": 0.3}),
        make_round(4, server_kwh=0.001, evaluate_metrics={"accuracy": 0.4}),
    ]
    totals, rows = RunTotals(), []
    for record in records:
        totals = totals.plus(record.summary())
        rows.append(record.summary(totals.total_emissions_kg))
        if record.round == 2:
            assert measured_kg(totals) is None
    assert marginals(rows[:3]) == [None, None]
    assert marginals(rows) == [None, None, None, pytest.approx(0.174 / 10)]
    assert measured_kg(totals) == totals.total_emissions_kg


def test_rounds_that_begin_in_the_middle_have_no_marginal() -> None:
    """The best value may be in a round that is not there."""
    rows = course((0.6, 1.0), (0.7, 1.0), (0.8, 1.0))
    assert marginal_g_per_point(rows, "accuracy") is not None
    assert marginal_g_per_point(rows[1:], "accuracy") is None


def test_the_evaluation_counts_where_there_is_one_and_the_last_attempt() -> None:
    """Training values are not mixed in; a repeated round has the value of its last attempt."""
    later: dict[str, Any] = {"started_at": START + timedelta(seconds=2.5 * ROUND_S),
             "ended_at": START + timedelta(seconds=3.5 * ROUND_S)}  # fmt: skip
    rows = [
        make_round(1, train_metrics={"accuracy": 0.99}).summary(0.001),
        make_round(2, evaluate_metrics={"accuracy": 0.5}).summary(0.002),
        make_round(2, attempt=2, evaluate_metrics={"accuracy": 0.6}, **later).summary(0.003),
    ]
    value = value_of(rows, "accuracy")
    assert value is not None
    assert value.split == "evaluate"
    assert [(s.round, s.value, s.spent_kg) for s in value.steps] == [(2, 0.6, 0.003)]
    trained = value_of(rows[:1], "accuracy")
    assert trained is not None
    assert trained.split == "train"


values = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(values, st.none() | st.floats(0, 1e6)), max_size=12), st.booleans())
def test_marginals_pay_for_the_whole_way_to_the_best(
    rounds: list[tuple[float | None, float | None]], falling: bool
) -> None:
    """Marginal × points of each gain adds up to the grams from the first value to the best."""
    rows = course(*rounds)
    value = value_of(rows, "accuracy", lower_is_better=falling)
    if value is None:
        assert all(metric is None for metric, _ in rounds)
        return
    gains = [s for s in value.steps if s.points is not None]
    known = [metric for metric, _ in rounds if metric is not None]
    best = min(known) if falling else max(known)
    assert value.best.value == pytest.approx(best, rel=1e-8)
    for step in value.steps:
        assert step.points is None or step.points > 0
        assert step.marginal_g_per_point is None or isfinite(step.marginal_g_per_point)
        assert step.marginal_g_per_point is None or step.marginal_g_per_point >= 0
    ordinary = all(1e-3 <= step.points <= 1e9 for step in gains if step.points is not None)
    first, last = value.steps[0].spent_kg, value.best.spent_kg
    if ordinary and first is not None and last is not None and None not in dict(rounds).values():
        paid = fsum((s.marginal_g_per_point or 0.0) * (s.points or 0.0) for s in gains)
        assert paid == pytest.approx((last - first) * 1000, rel=1e-6, abs=1e-6)
