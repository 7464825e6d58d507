"""Which run a text names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from telemetry.errors import RunDeleted, RunNotFound
from telemetry.selection import MAX_CANDIDATES, resolve_run
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, START, make_run

RUNS = (
    ("20260101-000000-aaaaaa", "digits", 0),
    ("20260102-000000-bbbbbb", "digits", 2),
    ("20260102-120000-cccccc", "images", 1),
    ("20260103-000000-dddddd", "20260102-000000-bbbbbb", 3),
)


@pytest.fixture
def store() -> Iterator[Store]:
    """Four runs; the one with the greatest id is not the one that started last."""
    kept = InMemoryStore()
    for run_id, name, hours in RUNS:
        started_at = START + timedelta(hours=hours)
        kept.start_run(make_run(run_id, run_name=name, started_at=started_at), OWNER, started_at)
    kept.finish_run("20260103-000000-dddddd", "completed", START + timedelta(hours=4))
    yield kept
    kept.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        pytest.param("20260101-000000-aaaaaa", "20260101-000000-aaaaaa", id="exact id"),
        pytest.param(
            "20260102-000000-bbbbbb", "20260102-000000-bbbbbb", id="id goes before a name"
        ),
        pytest.param("20260103", "20260103-000000-dddddd", id="unique prefix"),
        pytest.param("digits", "20260102-000000-bbbbbb", id="newest of a name"),
        pytest.param("images", "20260102-120000-cccccc", id="name"),
        pytest.param("latest", "20260103-000000-dddddd", id="latest, though it has ended"),
    ],
)
def test_a_run_is_found(store: Store, wanted: str, found: str) -> None:
    """Id, unique prefix, name and ``latest`` find a run, in this order."""
    assert resolve_run(store, wanted).run_id == found


def test_latest_is_the_one_that_started_last(store: Store) -> None:
    """A running run that started later is the latest, whatever its id."""
    started_at = START + timedelta(hours=9)
    store.start_run(make_run("10000000-old-id", started_at=started_at), OWNER, started_at)
    assert resolve_run(store, "latest").run_id == "10000000-old-id"


def test_a_run_called_latest_goes_before_the_word(store: Store) -> None:
    """Nobody's run is hidden by our own word."""
    store.start_run(make_run("20250101-x", run_name="latest", started_at=START), OWNER, START)
    assert resolve_run(store, "latest").run_id == "20250101-x"


@pytest.mark.parametrize("wanted", ["202", "20260102", "digts", "", "nothing like it", "2026010%"])
def test_what_names_no_run_is_not_found(store: Store, wanted: str) -> None:
    """A short or ambiguous prefix, a slip and nonsense raise, with at most five candidates."""
    with pytest.raises(RunNotFound) as caught:
        resolve_run(store, wanted)
    assert 0 < len(caught.value.candidates) <= MAX_CANDIDATES
    assert caught.value.where == "memory://"


def test_near_misses_come_first(store: Store) -> None:
    """An ambiguous prefix names its runs first, a misspelt name the runs of the right one."""
    with pytest.raises(RunNotFound) as ambiguous:
        resolve_run(store, "20260102")
    assert [text[:22] for text in ambiguous.value.candidates[:2]] == [
        "20260102-000000-bbbbbb",
        "20260102-120000-cccccc",
    ]
    with pytest.raises(RunNotFound, match=r"20260102-120000-cccccc \(images\)") as misspelt:
        resolve_run(store, "imagse")
    assert misspelt.value.candidates[0] == "20260102-120000-cccccc (images)"


def test_three_characters_are_no_prefix() -> None:
    """The beginning of an id counts from four characters on, even where three would do."""
    store = InMemoryStore()
    store.start_run(make_run("wxyz-1"), OWNER, START)
    assert resolve_run(store, "wxyz").run_id == "wxyz-1"
    with pytest.raises(RunNotFound):
        resolve_run(store, "wxy")


def test_at_most_five_candidates() -> None:
    """A store full of runs does not flood the message."""
    store = InMemoryStore()
    for number in range(9):
        store.start_run(make_run(f"run-{number}"), OWNER, START)
    with pytest.raises(RunNotFound) as caught:
        resolve_run(store, "run-")
    assert len(caught.value.candidates) == MAX_CANDIDATES


def test_an_empty_store_says_so() -> None:
    """Where no run is stored, ``latest`` finds none and the message says that there are none."""
    with pytest.raises(RunNotFound, match="it holds no runs"):
        resolve_run(InMemoryStore(), "latest")


def test_a_deleted_run_is_told_from_one_that_never_was(store: Store) -> None:
    """By its exact id, which nothing else is given; its name is free."""
    store.delete_run("20260103-000000-dddddd", START)
    with pytest.raises(RunDeleted, match="was deleted from memory"):
        resolve_run(store, "20260103-000000-dddddd")
    with pytest.raises(RunNotFound) as caught:
        resolve_run(store, "20260103-000000-eeeeee")
    assert not isinstance(caught.value, RunDeleted)
