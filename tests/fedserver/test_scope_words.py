"""The closing line says what the server's figure is of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedserver.wording import closing_line
from telemetry.domain import Scope
from telemetry.sharing import machine_share
from telemetry.store.memory import InMemoryStore
from telemetry.testing import FACTORS, OWNER, RUN_ID, START, make_round, make_run


def recorded(scope: Scope, *shares: float | None) -> InMemoryStore:
    """A run of that scope: a round with 0.001 kWh, then one with twice as much, and so on."""
    factors = replace(FACTORS, server_scope=scope)
    store = InMemoryStore()
    store.start_run(make_run(factors=factors), OWNER, START)
    for number, share in enumerate(shares, 1):
        kwh = None if share == -1 else 0.001 * number
        own = replace(factors, server_share=None if share == -1 else share)
        store.record_round(make_round(number, server_kwh=kwh, factors=own))
    return store


def closing(store: InMemoryStore) -> str:
    """Its closing line."""
    return closing_line(store.run(RUN_ID), list(store.rounds(RUN_ID)), "Spain")


@pytest.mark.parametrize(
    ("scope", "shares", "words"),
    [
        # 0.001 kWh of 0.01, and 0.002 of 0.1: 0.003 of 0.11
        ("allocation", (0.1, 0.02), "; allocation: 2.7 % of the machine; "),
        ("process", (0.5, -1), "; process: 50 % of the machine; "),
        ("process", (0.0001,), "; process: 0.01 % of the machine; "),
        ("allocation", (None,), "; allocation, not the whole machine; "),
        ("allocation", (1.0,), "; allocation: 100 % of the machine; "),
    ],
)
def test_a_share_is_called_one(scope: Scope, shares: tuple[float, ...], words: str) -> None:
    """With the share of the whole run, where it is known; of rounds that were metered."""
    assert words in closing(recorded(scope, *shares))


def test_the_whole_machine_needs_no_word() -> None:
    """Nor does a run whose server was not metered."""
    assert " of the machine" not in closing(recorded("machine", None))
    assert "allocation" not in closing(recorded("unknown", None))
    assert machine_share([]) is None
