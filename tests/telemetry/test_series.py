"""``max_series``: which runs and rounds leave ``/metrics`` when there are too many, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from telemetry.domain import Owner
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.exporters.series import STAYS_S
from telemetry.store import Store, open_store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run

NOW = START + timedelta(hours=1)
OTHER = Owner(host="elsewhere", pid=7, token="ffff")
ALL = 10**6


def page(
    store: Store,
    max_series: int,
    owner: Owner | None = None,
    max_runs: int = 50,
    max_rounds: int = 50,
    now: datetime = NOW,
) -> CollectorRegistry:
    """A registry at that moment."""
    collector = EmissionsCollector(
        store,
        owner,
        max_runs=max_runs,
        max_rounds=max_rounds,
        max_series=max_series,
        clock=lambda: now,
    )
    return metrics_registry(collector)


Series = tuple[str, frozenset[tuple[str, str]]]


def series(registry: CollectorRegistry) -> dict[Series, float]:
    """Every series of a run on the page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if "run_id" in sample.labels
    }


def runs_of(found: dict[Series, float]) -> set[str]:
    """Ids of the runs that have series."""
    return {dict(labels)["run_id"] for _, labels in found}


def rounds_of(found: dict[Series, float], run_id: str) -> list[int]:
    """Rounds of a run that have series, in order."""
    labels = [dict(labels) for _, labels in found]
    return sorted(
        {int(one["round"]) for one in labels if one["run_id"] == run_id and "round" in one}
    )


def a_run(
    store: Store, run_id: str, rounds: int, ended_minute: int | None = None, owner: Owner = OTHER
) -> None:
    """A run with so many rounds; it ended so many minutes after `START`, or is alive at `NOW`."""
    store.start_run(make_run(run_id), owner, START)
    for number in range(1, rounds + 1):
        store.record_round(
            make_round(number, run_id=run_id, clients={"a": 0.1}, train_metrics={"accuracy": 0.5})
        )
    if ended_minute is None:
        store.renew_lease(run_id, owner, NOW)
    else:
        store.finish_run(run_id, "completed", START + timedelta(minutes=ended_minute))
        store.release(run_id, owner)


def limits(registry: CollectorRegistry) -> tuple[float | None, float | None]:
    """What the page says of itself: series, and most series."""
    names = ("fl_exposed_series", "fl_exposed_series_limit")
    return registry.get_sample_value(names[0]), registry.get_sample_value(names[1])


def test_within_the_limit_nothing_leaves() -> None:
    """A limit of exactly what there is changes nothing."""
    store = InMemoryStore()
    a_run(store, "active", 3)
    a_run(store, "ended", 3, 1)
    whole = series(page(store, ALL))
    assert series(page(store, len(whole))) == whole
    assert limits(page(store, ALL)) == (len(whole), ALL)


def test_the_run_that_ended_first_leaves_first_and_whole() -> None:
    """One series too many costs the oldest ended run all of its series, and nobody else one."""
    store = InMemoryStore()
    a_run(store, "active", 3)
    for minute in (3, 1, 2):
        a_run(store, f"ended-{minute}", 3, minute)
    whole = series(page(store, ALL))
    limited = page(store, len(whole) - 1)
    found = series(limited)
    assert runs_of(found) == {"active", "ended-2", "ended-3"}
    assert found == {
        key: value for key, value in whole.items() if dict(key[1])["run_id"] != "ended-1"
    }
    assert limits(limited) == (len(found), len(whole) - 1)


def test_rounds_leave_only_when_no_ended_run_is_left_to_leave() -> None:
    """The oldest first, all families of a round together, as many of each run; totals stay."""
    store = InMemoryStore()
    a_run(store, "long", 9)
    a_run(store, "short", 2)
    a_run(store, "ended", 9, 1)
    whole = {
        key: value for key, value in series(page(store, ALL)).items() if "ended" not in str(key)
    }
    each = len({key for key in whole if ("round", "9") in key[1]})
    room_for_three = len(whole) - each * 6
    for limit, expected in (
        (room_for_three, [7, 8, 9]),
        (room_for_three + each - 1, [7, 8, 9]),
        (room_for_three - 1, [8, 9]),
    ):
        found = series(page(store, limit))
        assert runs_of(found) == {"long", "short"}
        assert rounds_of(found, "long") == expected
        assert rounds_of(found, "short") == [1, 2]
        without_rounds = {k: v for k, v in whole.items() if "round" not in dict(k[1])}
        assert {k: v for k, v in found.items() if "round" not in dict(k[1])} == without_rounds


def test_totals_of_active_runs_stay_above_any_limit() -> None:
    """The page then says that it is above its limit, and has no rounds and no ended run."""
    store = InMemoryStore()
    a_run(store, "active", 3)
    a_run(store, "ended", 3, 1)
    registry = page(store, 1)
    found = series(registry)
    assert runs_of(found) == {"active"}
    assert rounds_of(found, "active") == []
    assert (
        found[("fl_rounds_total", frozenset({("run_id", "active"), ("status", "completed")}))] == 3
    )
    assert limits(registry) == (len(found), 1)


def test_a_run_that_has_just_ended_stays_until_it_is_scraped() -> None:
    """For a minute, whatever the limits; its last figures would be lost otherwise."""
    store = InMemoryStore()
    a_run(store, "ended", 3, 10)
    end = START + timedelta(minutes=10)
    before = end + timedelta(seconds=STAYS_S - 1)
    after = end + timedelta(seconds=STAYS_S + 1)
    assert runs_of(series(page(store, 1, now=before))) == {"ended"}
    assert runs_of(series(page(store, 1, now=after))) == set()
    assert runs_of(series(page(store, ALL, max_runs=0, now=before))) == {"ended"}
    assert runs_of(series(page(store, ALL, max_runs=0, now=after))) == set()


def test_a_silent_run_leaves_like_one_that_ended_when_it_fell_silent() -> None:
    """A server that was killed must not hold its place for ever."""
    store = InMemoryStore()
    store.start_run(make_run("silent"), OTHER, START)
    a_run(store, "ended", 1, 5)
    a_run(store, "active", 1)
    whole = series(page(store, ALL))
    assert runs_of(whole) == {"silent", "ended", "active"}
    assert runs_of(series(page(store, len(whole) - 1))) == {"ended", "active"}


def test_a_service_shows_what_runs_and_what_ended_last() -> None:
    """The older ones are in the database, and their totals in its views."""
    store = InMemoryStore()
    a_run(store, "active", 1)
    for minute in range(1, 5):
        a_run(store, f"ended-{minute}", 1, minute)
    assert runs_of(series(page(store, ALL, max_runs=2))) == {"active", "ended-3", "ended-4"}
    assert len(EmissionsCollector(store, clock=lambda: NOW).views()) == 5, "the page shows all"


def test_a_servers_own_run_never_leaves() -> None:
    """Neither while it lingers nor afterwards."""
    store = InMemoryStore()
    a_run(store, "earlier", 2, 1)
    store.start_run(make_run("own"), OWNER, START)
    store.record_round(make_round(1, run_id="own", clients={"a": 0.1}))
    store.finish_run("own", "completed", START + timedelta(minutes=2))
    assert runs_of(series(page(store, 1, owner=OWNER))) == {"own"}


many = st.lists(
    st.tuples(st.integers(0, 4), st.none() | st.integers(1, 50)), min_size=1, max_size=5
)


@given(runs=many, share=st.floats(0.0, 1.1))
def test_what_is_left_fits_and_is_what_matters_most(
    runs: list[tuple[int, int | None]], share: float
) -> None:
    """Over any runs and any limit: as few series leave as the order allows, and never too few."""
    store = InMemoryStore()
    for number, (rounds, ended) in enumerate(runs):
        a_run(store, f"run-{number}", rounds, ended)
    whole = series(page(store, ALL))
    limit = max(1, int(len(whole) * share))
    registry = page(store, limit)
    found = series(registry)
    assert limits(registry) == (len(found), limit)
    assert found.items() <= whole.items()
    gone = runs_of(whole) - runs_of(found)
    ends = {f"run-{n}": ended for n, (_, ended) in enumerate(runs)}
    left_ends = [ends[run_id] for run_id in runs_of(found) if ends[run_id] is not None]
    for run_id in gone:
        end = ends[run_id]
        assert end is not None, "active runs stay"
        assert all(other is not None and other >= end for other in left_ends)
    kept = {key: value for key, value in whole.items() if dict(key[1])["run_id"] not in gone}
    if len(found) < len(kept):  # rounds left, too
        assert not left_ends
    totals = [key for key in kept if "round" not in dict(key[1])]
    assert all(key in found for key in totals)
    assert len(found) <= limit or len(found) == len(totals)
    for run_id in runs_of(found):
        numbers, before = rounds_of(found, run_id), rounds_of(whole, run_id)
        assert numbers == before[len(before) - len(numbers) :]


@pytest.fixture
def long_run(sqlite_url: str) -> Iterator[Store]:
    """A store for a run with 500 rounds."""
    store = open_store(sqlite_url)
    yield store
    store.close()


def test_a_run_of_500_rounds_stays_within_its_bounds(long_run: Store) -> None:
    """``metrics_rounds`` and ``max_series`` hold all the while, no counter falls, the total is whole."""
    long_run.start_run(make_run(rounds_planned=500), OWNER, START)
    pages = {
        limit: page(long_run, limit, owner=OWNER, max_rounds=200, now=START)
        for limit in (50_000, 1_000)
    }
    before: dict[int, dict[Series, float]] = {limit: {} for limit in pages}
    for number in range(1, 501):
        long_run.record_round(
            make_round(
                number,
                clients={"a": 0.1, "b": "missing"},
                train_metrics={"accuracy": number / 1000, "loss": 1.0},
                evaluate_metrics={"accuracy": number / 1000, "loss": 1.0},
            )
        )
        if number % 50:
            continue
        for limit, registry in pages.items():
            found = series(registry)
            shown = rounds_of(found, RUN_ID)
            assert shown[-1] == number
            assert len(shown) == (min(number, 200) if limit == 50_000 else min(number, len(shown)))
            assert len(found) <= limit
            for key, value in before[limit].items():
                if key[0].endswith(("_total", "_bucket", "_count", "_sum")):
                    assert found[key] >= value, key
            before[limit] = found
    whole, small = before[50_000], before[1_000]
    assert len(rounds_of(whole, RUN_ID)) == 200
    assert 90 < len(rounds_of(small, RUN_ID)) < 120, "the limit is used"
    total = ("fl_rounds_total", frozenset({("run_id", RUN_ID), ("status", "completed")}))
    assert whole[total] == small[total] == 500
