"""Sums over rounds are those of any order, to the last digit."""

from __future__ import annotations

import random
import sys
from dataclasses import fields, replace
from fractions import Fraction
from math import fsum, inf, isnan, nan

from hypothesis import given
from hypothesis import strategies as st

from telemetry.domain import Rest, RunTotals
from telemetry.domain.exact import exactly
from telemetry.testing import make_round

amounts = st.floats(min_value=0.0, max_value=1e90)


def added(values: list[float]) -> tuple[float, Rest]:
    """One after the other."""
    total, rest = 0.0, Rest()
    for value in values:
        total, rest = exactly(total, rest, value)
    return total, rest


@given(st.lists(amounts, max_size=20), st.randoms())
def test_nothing_is_lost_and_no_order_matters(values: list[float], chance: random.Random) -> None:
    """The nearest double to the true sum, and the rest of it; against exact fractions."""
    total, rest = added(values)
    assert total == fsum(values)
    assert sum(map(Fraction, rest), Fraction(total)) == sum(map(Fraction, values))
    other = list(values)
    chance.shuffle(other)
    assert added(other) == (total, rest)


@given(st.lists(amounts, min_size=1, max_size=20))
def test_a_sum_of_what_is_not_negative_never_falls(values: list[float]) -> None:
    """A counter would take that for a restart."""
    sums = [added(values[:count])[0] for count in range(len(values) + 1)]
    assert sums == sorted(sums)


def test_beyond_all_numbers_a_sum_is_infinite() -> None:
    """As an ordinary one; it raises nothing, and ends."""
    assert added([1e308, 1e308, 0.1]) == (inf, ())
    assert exactly(sys.float_info.max, (2.0**969,), 2.0**969) == (inf, ())
    assert exactly(inf, (), 1.0) == (inf, ())
    total, rest = exactly(1.0, (1e-20,), nan)
    assert isnan(total)
    assert rest == ()


@given(st.randoms(use_true_random=False))
def test_the_totals_of_a_run_are_those_of_any_order(chance: random.Random) -> None:
    """Every sum of them."""
    rows = [
        make_round(
            number,
            sequence=number + 1,
            server_kwh=chance.random() * 10.0 ** chance.randint(-9, 0),
            clients={"a": chance.random() * 10.0 ** chance.randint(-9, 0)},
        ).summary()
        for number in range(8)
    ]
    one = other = RunTotals()
    for row in rows:
        one = one.plus(row)
    chance.shuffle(rows)
    for row in rows:
        other = other.plus(row)
    assert one == other
    for item in fields(RunTotals):
        assert getattr(one, item.name) == getattr(other, item.name), item.name
    assert one.total_emissions_kg == fsum(row.measured_emissions_kg or 0.0 for row in rows)
    assert one.client_histogram.sum_g == fsum(row.client_histogram.sum_g for row in rows)


@given(st.lists(st.tuples(amounts, st.booleans()), max_size=20))
def test_totals_never_fall_where_some_rounds_do_not_say_their_place(
    values: list[tuple[float, bool]],
) -> None:
    """As in a run that an older server began."""
    totals = RunTotals()
    row = make_round(1, server_kwh=1.0).summary()
    for place, (value, numbered) in enumerate(values):
        before = totals.server_energy_kwh or 0.0
        sequence = place + 1 if numbered else None
        totals = totals.plus(replace(row, server_energy_kwh=value, sequence=sequence))
        assert (totals.server_energy_kwh or 0.0) >= before


def test_a_rest_is_no_reason_to_fall_after_a_round_that_does_not_say_its_place() -> None:
    """Half a digit below an even total, and half a digit below an odd one, round differently."""
    digit = 2.0**-52
    totals = RunTotals()
    row = make_round(1).summary()
    found = []
    for value, sequence in ((1.0, 1), (1.5 * digit, 2), (digit, None), (0.0, 3)):
        totals = totals.plus(replace(row, server_energy_kwh=value, sequence=sequence))
        found.append(totals.server_energy_kwh or 0.0)
    assert found == sorted(found)
