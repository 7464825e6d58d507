"""What a budget says to rounds that have been: when it warns, when it stops, and when it must not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.budget import FEWEST_REPORTERS, Reporters, Verdict, judge, used_ratio
from telemetry.domain import RoundSummary
from telemetry.testing import make_report, make_round, pseudonym_of

amounts = st.floats(0, 1e3, allow_nan=False)
fleets = st.dictionaries(st.sampled_from("abcdef"), amounts, max_size=6)
budgets = st.floats(1e-6, 1e4, allow_nan=False)


def row(number: int, clients: dict[str, float] | None = None, **facts: Any) -> RoundSummary:
    """A round without a meter, in which clients reported these kg."""
    facts = {"server_kwh": None, **facts}
    return make_round(number, clients=dict(clients or {}), **facts).summary()


def evenly(number: int, kg: float, **facts: Any) -> RoundSummary:
    """A round of so many kg, from four clients alike."""
    return row(number, dict.fromkeys("abcd", kg / 4), **facts)


def reporters_of(rounds: Sequence[dict[str, float]]) -> Reporters:
    """Who reported how much in these rounds."""
    sums: dict[str, float] = {}
    for clients in rounds:
        for name, kg in clients.items():
            sums[pseudonym_of(name)] = sums.get(pseudonym_of(name), 0.0) + kg
    return Reporters(sums)


def stop(rounds: Sequence[RoundSummary], budget_kg: float) -> Verdict:
    """The verdict where clients show tokens."""
    return judge(rounds, budget_kg, "stop")


# --- the forecast, and what it leads to -------------------------------------------------------------


def test_the_forecast_is_the_mean_of_the_last_three_rounds() -> None:
    """Set-up and older rounds count in what is spent, not in what is expected."""
    rounds = [evenly(n, kg) for n, kg in enumerate((100.0, 50.0, 1.0, 2.0, 6.0))]
    verdict = stop(rounds, 1000.0)
    assert (verdict.spent_kg, verdict.forecast_kg) == (159.0, 3.0)
    assert verdict.used_ratio == pytest.approx(0.159)
    assert (verdict.action, verdict.cause, verdict.reason) == ("ok", None, None)


def test_fewer_rounds_forecast_with_what_there_is() -> None:
    """One round is its own mean; before the first there is no forecast."""
    assert stop([evenly(0, 5.0)], 10.0).forecast_kg is None
    assert stop([evenly(0, 5.0), evenly(1, 2.0)], 10.0).forecast_kg == 2.0


def test_interrupted_and_unknown_rounds_forecast_nothing() -> None:
    """Half a round says nothing of a whole one; what is unknown is not taken for 0."""
    rounds = [
        evenly(1, 4.0),
        evenly(2, 0.5, status="interrupted"),
        row(2, attempt=2, participants=make_round(2, clients={"a": "missing"}).participants),
    ]
    assert rounds[-1].total_emissions_kg is None
    verdict = stop(rounds, 100.0)
    assert (verdict.spent_kg, verdict.forecast_kg) == (4.5, 4.0)


@pytest.mark.parametrize(
    ("budget_kg", "action", "cause"),
    [
        (12.6, "ok", None),  # 8 and 4 are 12
        (12.0, "ok", None),  # exactly: not crossed
        (11.9, "stop", "crossing"),
        (7.9, "stop", "spent"),
    ],
)
def test_a_run_is_stopped_before_the_round_that_would_cross(
    budget_kg: float, action: str, cause: str | None
) -> None:
    """Spent and forecast together must be more than the budget."""
    verdict = stop([evenly(1, 4.0), evenly(2, 4.0)], budget_kg)
    assert (verdict.action, verdict.cause) == (action, cause)


def test_set_up_alone_can_spend_a_budget() -> None:
    """Before the first round nothing is forecast; what is spent already is enough."""
    setup = make_round(0, server_kwh=0.01).summary()
    assert setup.total_emissions_kg is not None
    assert stop([setup], setup.total_emissions_kg).action == "warn"
    for reporters in (None, Reporters()):  # nobody reported: there is no claim to doubt
        verdict = judge([setup], setup.total_emissions_kg * 0.99, "stop", reporters)
        assert (verdict.action, verdict.cause) == ("stop", "spent")


@pytest.mark.parametrize(
    ("spent_kg", "cause"), [(79.9, None), (80.0, "near"), (100.0, "near"), (100.1, "spent")]
)
def test_it_warns_from_80_percent_on(spent_kg: float, cause: str | None) -> None:
    """Nearly spent, and spent; with ``on_budget: warn`` nothing more comes of it."""
    verdict = judge([evenly(0, spent_kg)], 100.0, "warn")
    assert (verdict.action, verdict.cause) == ("ok" if cause is None else "warn", cause)


def test_estimates_spend_nothing() -> None:
    """Communication and imputed emissions stand beside the total, and the budget is of the total."""
    plain = evenly(1, 4.0)
    rich = replace(
        plain, communication_emissions_kg_estimated=1e3, imputed_emissions_kg=1e3,
        imputed_high_emissions_kg=1e4, estimated_total_emissions_kg=2e3,
    )  # fmt: skip
    assert stop([rich], 9.0) == stop([plain], 9.0)


def test_nothing_known_is_said_and_stops_nothing() -> None:
    """Unknown is not 0, and no ground to stop either."""
    verdict = stop([row(1, participants=make_round(1, clients={"a": "missing"}).participants)], 1.0)
    assert (verdict.action, verdict.cause, verdict.used_ratio) == ("warn", "unknown", None)
    assert stop([], 1.0).action == "ok"


def test_a_set_up_that_was_not_metered_spends_nothing_that_is_known() -> None:
    """Nobody took part in it, and that 0 is no knowledge of what the run has spent."""
    setup = make_round(0, server_kwh=None, laps=()).summary()
    silent = row(1, participants=make_round(1, clients={"a": "missing"}).participants)
    assert (setup.total_emissions_kg, setup.measured_emissions_kg) == (0.0, None)
    before, after = stop([setup], 1.0), stop([setup, silent], 1.0)
    assert (before.action, before.spent_kg) == ("ok", None)
    assert (after.action, after.cause, after.spent_kg) == ("warn", "unknown", None)


def test_a_verdict_reads_as_a_sentence() -> None:
    """With grams, the share, and what is expected."""
    assert stop([evenly(1, 0.004), evenly(2, 0.004)], 0.010).reason == (
        "8.00 g of the budget of 10.0 g are spent (80 %), and the next round would take about 4.00 g"
    )


def test_the_ratio_is_unknown_without_a_part() -> None:
    """No budget, a budget of 0, nothing known."""
    assert [used_ratio(1.0, None), used_ratio(1.0, 0.0), used_ratio(None, 1.0)] == [None] * 3
    assert used_ratio(0.0, 4.0) == 0.0


# --- whose word is enough to stop everybody ----------------------------------------------------------


FOUR = [dict.fromkeys("abcd", 1.0)] * 2
TWO = [dict.fromkeys("ab", 2.0)] * 2
ONE_BIG = [{"a": 3.0, "b": 0.5, "c": 0.5}] * 2
HALF = [{"a": 2.0, "b": 1.0, "c": 1.0}] * 2


@pytest.mark.parametrize(
    ("fleet", "held_back"),
    [(FOUR, None), (TWO, "few_reporters"), (ONE_BIG, "one_reporter"), (HALF, None)],
)
def test_few_reporters_or_a_great_one_stop_nobody(
    fleet: list[dict[str, float]], held_back: str | None
) -> None:
    """8 kg of 10, 4 to come: a stop, unless it would rest on too few; exactly half is not above."""
    rounds = [row(n, clients) for n, clients in enumerate(fleet, start=1)]
    verdict = judge(rounds, 10.0, "stop", reporters_of(fleet))
    assert verdict.held_back == held_back
    assert verdict.action == ("stop" if held_back is None else "warn")
    assert held_back is None or "the training goes on" in str(verdict.reason)
    assert judge(rounds, 10.0, "stop").action == "stop", "with tokens each is known"


def test_the_servers_own_part_makes_a_client_smaller() -> None:
    """A client's share is of all that is spent: what the server measured itself nobody made up."""
    rounds = [row(n, clients) for n, clients in enumerate(ONE_BIG, start=1)]
    with_server = [*rounds, make_round(3, server_kwh=100.0).summary()]
    budget_kg = 10.0
    assert judge(rounds, budget_kg, "stop", reporters_of(ONE_BIG)).action == "warn"
    assert judge(with_server, budget_kg, "stop", reporters_of(ONE_BIG)).action == "stop"


def test_what_is_nobodys_by_name_may_be_one_clients() -> None:
    """Where rows of clients are not kept, their round counts as the greatest reporter's."""
    rounds = [row(n, clients) for n, clients in enumerate(FOUR, start=1)]
    assert judge(rounds, 10.0, "stop", Reporters()).held_back == "one_reporter"
    assert judge(rounds, 10.0, "stop", reporters_of(FOUR[:1])).held_back == "one_reporter"


def flagged(number: int, honest: dict[str, float], **odd: float) -> RoundSummary:
    """A round in which some reports bear a mark."""
    reports = [make_report(name, kg) for name, kg in honest.items()]
    reports += [make_report(name, kg, outlier=True) for name, kg in odd.items()]
    everybody = make_round(number, clients={**honest, **odd})
    return row(number, participants=everybody.participants, reports=tuple(reports))


def test_marked_reports_count_in_what_is_spent_and_not_towards_a_stop() -> None:
    """One client says a ton: it is shown as spent, everybody is warned, nobody is stopped."""
    rounds = [flagged(n, dict.fromkeys("abcd", 1.0), odd=1000.0) for n in (1, 2)]
    for reporters in (None, reporters_of(FOUR)):
        verdict = judge(rounds, 20.0, "stop", reporters)
        assert verdict.spent_kg == 2008.0
        assert (verdict.action, verdict.held_back) == ("warn", "flagged")
    assert judge(rounds, 10.0, "stop", reporters_of(FOUR)).action == "stop", "8 and 4 cross 10"


# --- properties --------------------------------------------------------------------------------------


@given(st.lists(fleets, max_size=6), budgets, st.sampled_from(("warn", "stop")), st.booleans())
def test_a_run_within_its_budget_is_never_stopped(
    fleet: list[dict[str, float]], budget_kg: float, on_budget: Any, trusted: bool
) -> None:
    """A stop needs ``stop``, and more than the budget with the forecast; then it warns at least."""
    rounds = [row(n, clients) for n, clients in enumerate(fleet)]
    verdict = judge(rounds, budget_kg, on_budget, None if trusted else reporters_of(fleet))
    spent, forecast = verdict.spent_kg or 0.0, verdict.forecast_kg or 0.0
    if spent + forecast <= budget_kg:
        assert verdict.action != "stop"
    else:
        assert verdict.action != "ok"
        assert verdict.action == "stop" or on_budget == "warn" or verdict.held_back is not None
    if on_budget == "warn":
        assert verdict.action != "stop"
    if verdict.action == "stop" and not trusted:
        # A meter's figure would be enough by itself; here there is none.
        named = {name for clients in fleet for name in clients}
        assert len(named) >= FEWEST_REPORTERS


@given(st.lists(fleets, min_size=1, max_size=6), budgets, st.floats(1.0, 100.0))
def test_a_greater_budget_is_never_stricter(
    fleet: list[dict[str, float]], budget_kg: float, factor: float
) -> None:
    """Whoever may go on with a budget may go on with a greater one."""
    order = {"ok": 0, "warn": 1, "stop": 2}
    rounds = [row(n, clients) for n, clients in enumerate(fleet)]
    less, more = (
        judge(rounds, kg, "stop", reporters_of(fleet)) for kg in (budget_kg, budget_kg * factor)
    )
    assert order[more.action] <= order[less.action]


@given(st.lists(fleets, min_size=1, max_size=6), budgets, st.randoms())
def test_the_order_in_which_rounds_are_given_does_not_matter(
    fleet: list[dict[str, float]], budget_kg: float, shuffle: Any
) -> None:
    """They come from memory and from the store."""
    rounds = [row(n, clients) for n, clients in enumerate(fleet)]
    mixed = list(rounds)
    shuffle.shuffle(mixed)
    assert judge(mixed, budget_kg, "stop", reporters_of(fleet)) == judge(
        rounds, budget_kg, "stop", reporters_of(fleet)
    )


@given(st.lists(fleets, min_size=1, max_size=5), budgets, fleets)
def test_another_report_that_is_marked_never_leads_to_a_stop(
    fleet: list[dict[str, float]], budget_kg: float, odd: dict[str, float]
) -> None:
    """Whoever is not stopped is not stopped for any number of reports that look odd."""
    rounds = [row(n, clients) for n, clients in enumerate(fleet)]
    marked = [
        flagged(n, clients, **{f"odd-{name}": kg for name, kg in odd.items()})
        for n, clients in enumerate(fleet)
    ]
    for reporters in (None, reporters_of(fleet)):
        if judge(rounds, budget_kg, "stop", reporters).action != "stop":
            assert judge(marked, budget_kg, "stop", reporters).action != "stop"
