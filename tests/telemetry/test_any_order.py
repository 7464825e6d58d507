"""Deliveries that come in any order, again and again, or in part, of servers whose clocks are wrong."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from math import fsum
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from telemetry.domain import RoundRecord
from telemetry.service import bodies
from telemetry.service.service import create_service
from telemetry.store import Store, open_store
from telemetry.store.deliveries import DeliveredEnd, DeliveredRounds, DeliveredRun, Delivery
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
        times: dict[str, Any] = {
            "started_at": at,
            "ended_at": at + timedelta(minutes=1),
            "sequence": number + 1,
        }
        opened.append(message(make_round(number, closed=False, **times)))
        clients = {**CLIENTS, "1": 0.1 / (number + 7)}
        closed.append(make_round(number, clients=clients, revision=2, **times))
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


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_same_result_though_later_rounds_come_first(data: st.DataObject) -> None:
    """One is refused at first, say. Rows, running totals and seal are the server's in the end."""
    with closing(open_store("memory://")) as ours, closing(open_store("memory://")) as theirs:
        all_ = told(ours, timedelta())
        said = data.draw(st.permutations([*all_.closed, *all_.closed[:2], all_.end]))
        deliver(theirs, [all_.announcement, *said])
        assert_same(theirs, ours)


RESUMED = ((0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 2), (3, 2), (4, 1), (5, 1))
"""Rounds and attempts of a run that was resumed after round 1, as they were closed."""


@pytest.mark.parametrize("kind", ["memory_url", "sqlite_url", "postgres_url"])
@pytest.mark.parametrize("seed", range(4))
def test_rounds_of_a_resumed_run_in_any_order(
    kind: str, seed: int, request: pytest.FixtureRequest
) -> None:
    """In the end rows, running totals and seal are those of the server."""
    url = "memory://" if kind == "memory_url" else request.getfixturevalue(kind)
    rounds = [
        make_round(
            number,
            attempt=attempt,
            sequence=place + 1,
            server_kwh=0.1 / (place + 3),
            clients={"1": 0.1 / (place + 7)},
            started_at=START + timedelta(minutes=place),
            ended_at=START + timedelta(minutes=place + 1),
        )
        for place, (number, attempt) in enumerate(RESUMED)
    ]
    end = DeliveredEnd(
        writer="a", run_id=RUN_ID, status="completed", ended_at=START + timedelta(hours=1)
    )
    with closing(open_store("memory://")) as ours, closing(open_store(url)) as theirs:
        ours.start_run(make_run(), OWNER, START)
        for one in rounds:
            ours.record_round(one)
        ours.finish_run(RUN_ID, end.status, end.ended_at, None)
        given: list[Delivery] = [
            DeliveredRounds(writer="a", run_id=RUN_ID, records=(one,)) for one in rounds
        ]
        random.Random(seed).shuffle(given)
        given.insert(len(given) - seed, end)  # some rounds come after the end
        theirs.deliver([DeliveredRun(writer="a", info=make_run())], START)
        for some in (given[:3], given[3:4], given[4:]):
            assert not [one for one in theirs.deliver(some, START) if isinstance(one, Exception)]
        assert_same(theirs, ours)


@pytest.mark.parametrize("kind", ["memory_url", "sqlite_url"])
@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("back", [2, 60])
def test_a_clock_that_was_set_back_before_a_run_was_resumed_changes_no_order(
    kind: str, numbered: bool, back: int, request: pytest.FixtureRequest
) -> None:
    """What the server added up as it came stays so when it ends; rounds of older servers, too."""
    url = "memory://" if kind == "memory_url" else request.getfixturevalue(kind)
    with closing(open_store(url)) as store:
        store.start_run(make_run(), OWNER, START)
        for place, (number, attempt) in enumerate(RESUMED):
            minutes = place - (back if place > 3 else 0)
            at = START + timedelta(minutes=minutes)
            times: dict[str, Any] = {"started_at": at, "ended_at": at + timedelta(seconds=50)}
            sequence = place + 1 if numbered else None
            store.record_round(
                make_round(number, attempt=attempt, clients={"1": 0.1}, sequence=sequence, **times)
            )
        before = list(store.rounds(RUN_ID))
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        assert list(store.rounds(RUN_ID)) == before


def test_what_an_older_server_closed_comes_before_what_says_its_place() -> None:
    """A run that was resumed by a version that tells it."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        for number, sequence in ((0, None), (2, None), (4, 5), (1, None), (3, 4)):
            store.record_round(make_round(number, clients={"1": 0.25}, sequence=sequence))
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        by_sum = sorted(store.rounds(RUN_ID), key=lambda row: row.cumulative_emissions_kg or 0.0)
        assert [row.round for row in by_sum] == [0, 2, 1, 3, 4]


def closed(number: int, sequence: int | None = None, attempt: int = 1, **facts: Any) -> RoundRecord:
    """A round whose figures no double holds exactly."""
    clients = {"1": 0.1 / (number + 7 * attempt)}
    return make_round(number, attempt=attempt, sequence=sequence, clients=clients, **facts)


def test_an_older_server_adds_up_plainly_and_so_does_whoever_takes_its_rounds() -> None:
    """Its figures, and its seal, are the ones that it has."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        plain = 0.0
        for number in range(30):
            record = closed(number)
            store.record_round(record)
            plain += record.total_emissions_kg or 0.0
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        assert store.run(RUN_ID).totals.total_emissions_kg == plain
        assert list(store.rounds(RUN_ID))[-1].cumulative_emissions_kg == plain
        assert plain != fsum(closed(number).total_emissions_kg or 0.0 for number in range(30))


@pytest.mark.parametrize("order", [(0, 2, 3, 1), (3, 2, 1, 0)])
def test_rounds_of_an_older_server_that_was_not_resumed_are_in_order_by_number(
    order: tuple[int, ...],
) -> None:
    """Cumulative figures and seal are those of the run that came in order."""
    with closing(open_store("memory://")) as one, closing(open_store("memory://")) as other:
        for store, numbers in ((one, range(4)), (other, order)):
            store.start_run(make_run(), OWNER, START)
            for number in numbers:
                store.record_round(closed(number))
            store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        assert list(other.rounds(RUN_ID)) == list(one.rounds(RUN_ID))
        assert other.run(RUN_ID).sha256 == one.run(RUN_ID).sha256


def test_a_run_that_a_newer_server_resumed_is_delivered_as_it_is() -> None:
    """Rounds that do not say their place first, in the order in which they were added up."""
    with closing(open_store("memory://")) as ours, closing(open_store("memory://")) as theirs:
        ours.start_run(make_run(), OWNER, START)
        kept = [closed(number) for number in range(5)]
        kept += [closed(0, 6, 2), closed(4, 7, 2), closed(5, 8), closed(6, 9)]
        for record in kept:
            ours.record_round(record)
        before = list(ours.rounds(RUN_ID))
        end = START + timedelta(hours=1)
        ours.finish_run(RUN_ID, "completed", end, None)
        assert list(ours.rounds(RUN_ID)) == before
        (waiting,) = ours.undelivered("http://service", START, OWNER)
        theirs.deliver([DeliveredRun(writer="a", info=make_run())], START)
        for pending in waiting.rounds:
            record = ours.round(RUN_ID, *pending.key)
            theirs.deliver([DeliveredRounds(writer="a", run_id=RUN_ID, records=(record,))], START)
        ended = DeliveredEnd(writer="a", run_id=RUN_ID, status="completed", ended_at=end)
        theirs.deliver([ended], START)
        assert_same(theirs, ours)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_two_rounds_of_one_place_lie_the_same_way_in_any_order(order: tuple[int, ...]) -> None:
    """As a program might say it that counts wrongly."""
    rounds = [closed(0, 1), closed(1, 2), closed(2, 2), closed(1, 2, 2)]
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        for place in order:
            store.record_round(rounds[place])
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        by_sum = sorted(store.rounds(RUN_ID), key=lambda row: row.cumulative_emissions_kg or 0.0)
        assert [(row.round, row.attempt) for row in by_sum] == [(0, 1), (1, 1), (2, 1), (1, 2)]


def test_an_older_round_that_nobody_measured_keeps_its_figure_whatever_the_clock() -> None:
    """Of two with the same figure, the one that added it came first."""
    with closing(open_store("memory://")) as store:
        store.start_run(make_run(), OWNER, START)
        late, early = START + timedelta(minutes=5), START + timedelta(minutes=1)
        store.record_round(closed(0, started_at=late, ended_at=late + timedelta(minutes=1)))
        store.record_round(
            make_round(
                1, server_kwh=None, clients={"1": "missing"},
                started_at=early, ended_at=early + timedelta(minutes=1),
            )
        )  # fmt: skip
        store.record_round(closed(2, 3))
        before = list(store.rounds(RUN_ID))
        store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        assert list(store.rounds(RUN_ID)) == before


@pytest.mark.parametrize("minutes", [1, -1])
def test_a_server_that_stores_a_round_late_adds_up_in_order_in_the_end(minutes: int) -> None:
    """One that its store would not take before, say; though its clock goes backwards."""
    rounds = [
        make_round(
            number,
            sequence=number + 1,
            clients={"1": 0.1 / (number + 7)},
            started_at=START + timedelta(minutes=minutes * number),
            ended_at=START + timedelta(minutes=minutes * number, seconds=50),
        )
        for number in range(4)
    ]
    with closing(open_store("memory://")) as one, closing(open_store("memory://")) as other:
        for store, order in ((one, (0, 1, 2, 3)), (other, (0, 2, 3, 1))):
            store.start_run(make_run(), OWNER, START)
            for number in order:
                store.record_round(rounds[number])
            store.add_late_reports(RUN_ID, 2)
            store.finish_run(RUN_ID, "completed", START + timedelta(hours=1), None)
        assert_same(other, one)
        sums = [row.cumulative_emissions_kg or 0.0 for row in other.rounds(RUN_ID)]
        assert sums == sorted(sums)  # by number, whatever the clock said
        assert other.run(RUN_ID).totals.reports_late == 2
