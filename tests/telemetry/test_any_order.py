"""Deliveries that come in any order, again and again, or in part, of servers whose clocks are wrong."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.domain import RoundRecord
from telemetry.service import bodies
from telemetry.service.service import create_service
from telemetry.store import Store, open_store
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run
from tests.service_double import assert_same

RUN = f"/api/v1/runs/{RUN_ID}"
JSON = {"Content-Type": "application/json"}
CLIENTS: dict[str, float | str] = {"1": 0.5, "2": "missing", "3": "negative", "4": "failed"}
Message = tuple[str, str, bytes]


@dataclass
class Told:
    """What a server says of a run."""

    announcement: Message
    opened: list[Message]
    closed: list[Message]
    """In the order of their closing; two of them come again in between, as a batch."""
    end: Message


def told(ours: Store, skew: timedelta) -> Told:
    """What a server whose clock is off by ``skew`` records in ``ours`` and says."""
    info = make_run(started_at=START + skew)
    ours.start_run(info, OWNER, START + skew)

    def message(*records: RoundRecord) -> Message:
        return "POST", f"{RUN}/rounds", bodies.rounds_json(map(bodies.round_json, records))

    opened, closed = [], []
    for number in range(4):
        at = START + skew + timedelta(minutes=number)
        times: dict[str, Any] = {"started_at": at, "ended_at": at + timedelta(minutes=1)}
        opened.append(message(make_round(number, closed=False, **times)))
        closed.append(make_round(number, clients=CLIENTS, revision=2, **times))
        ours.record_round(closed[-1])
    ours.add_late_reports(RUN_ID, 2)
    end = START + skew + timedelta(minutes=9)
    ours.finish_run(RUN_ID, "completed", end, None)
    finish = bodies.finish_json("completed", end, None, 2)
    said = [*map(message, closed[:2]), message(*closed[1:3]), *map(message, closed[2:])]
    return Told(
        ("PUT", RUN, bodies.run_json(info)), opened, said, ("POST", f"{RUN}/finish", finish)
    )


def deliver(store: Store, messages: Iterable[Message]) -> None:
    """To a service over ``store``, which takes each."""
    with TestClient(create_service(store), "http://127.0.0.1") as client:
        for method, path, body in messages:
            answer = client.request(method, path, content=body, headers=JSON)
            assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("days", [-3650, 0, 3650])
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_same_result_in_any_order(days: int, data: st.DataObject) -> None:
    """Repeats, rounds in parts, an end before its rounds, old news after new; ten years off or not."""
    with closing(open_store("memory://")) as ours, closing(open_store("memory://")) as theirs:
        all_ = told(ours, timedelta(days=days))
        order = list(all_.closed)
        for message in (*all_.opened, all_.end):
            order.insert(data.draw(st.integers(0, len(order))), message)
        for message in data.draw(st.lists(st.sampled_from(order), max_size=8)):
            order.insert(data.draw(st.integers(order.index(message), len(order))), message)
        deliver(theirs, [all_.announcement, *order])
        assert_same(theirs, ours)


def test_a_round_that_comes_after_later_ones_is_whole() -> None:
    """It was refused at first, say: the totals are the same; its running total is as of its arrival."""
    with closing(open_store("memory://")) as ours, closing(open_store("memory://")) as theirs:
        all_ = told(ours, timedelta())
        first, *later = all_.closed
        deliver(theirs, [all_.announcement, *later, all_.end, first])
        here, there = theirs.run(RUN_ID), ours.run(RUN_ID)
        assert (here.status, here.ended_at) == (there.status, there.ended_at)
        assert here.totals == there.totals
        rows = zip(theirs.rounds(RUN_ID), ours.rounds(RUN_ID), strict=True)
        for row, expected in rows:
            total = expected.cumulative_emissions_kg
            assert replace(row, cumulative_emissions_kg=total) == expected
        assert list(theirs.reports(RUN_ID)) == list(ours.reports(RUN_ID))
        arrived_last = next(iter(theirs.rounds(RUN_ID)))
        assert arrived_last.cumulative_emissions_kg == here.totals.total_emissions_kg
