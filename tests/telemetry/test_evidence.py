"""Digests of rows and the text of times: what is made quickly is what was always meant."""

from __future__ import annotations

from contextlib import closing
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from telemetry.digest import run_sha256
from telemetry.domain import ReportRecord, RoundRecord, sha256_of, utc_text
from telemetry.domain.evidence import ROWS_AT_ONCE
from telemetry.domain.times import utc_texts
from telemetry.store import open_store
from telemetry.store.deliveries import DeliveredRounds, DeliveredRun
from telemetry.store.sql.rounds import BESIDE_FROM_ROWS
from telemetry.testing import OWNER, START, make_report, make_round, make_run
from tests import strategies


def plainly(record: RoundRecord) -> str:
    """The digest as it is described: of one JSON object, made in one piece."""
    return sha256_of(
        {
            "laps": list(map(astuple, record.laps)),
            "participants": list(map(astuple, record.participants)),
            "reports": list(map(astuple, record.reports)),
        }
    )


@given(strategies.rounds())
def test_the_digest_is_that_of_one_json_object(record: RoundRecord) -> None:
    """Whatever the rows hold."""
    kept = record.model_copy(update={"closed": True, "status": "failed", "client_rows": True})
    assert kept.evidence_sha256 == plainly(kept)


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 3 * ROWS_AT_ONCE - 1])
def test_the_digest_of_many_rows_is_that_of_all_together(count: int) -> None:
    """However many are written out at once."""
    record = make_round(1, clients={str(node): 0.001 * node for node in range(count)})
    turns: list[None] = []
    assert record.digest_of_rows(lambda: turns.append(None)) == plainly(record)
    few = 1 + 2 * count <= ROWS_AT_ONCE
    assert len(turns) == (0 if few else 1 + 2 * -(-count // ROWS_AT_ONCE))


def test_a_copy_has_a_digest_of_its_own() -> None:
    """What was worked out for the original is not taken over."""
    record = make_round(1, clients={"1": 0.5})
    before = record.summary()
    other = record.model_copy(update={"reports": (make_report("1", 0.25),)})
    assert other.evidence_sha256 == plainly(other) != before.evidence_sha256
    assert other.summary().clients_emissions_kg == 0.25


def test_a_number_that_is_none_has_no_digest() -> None:
    """It is refused, not written as some word."""
    report = make_report("1", 0.5, energy_kwh=float("nan"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        _ = make_round(1).model_copy(update={"reports": (report,)}).evidence_sha256


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_a_large_round_is_stored_with_its_digest(kind: str, request: pytest.FixtureRequest) -> None:
    """Where it is made beside, too; and several in one go keep theirs apart."""
    clients: dict[str, float | str] = {str(node): 0.5 for node in range(BESIDE_FROM_ROWS)}
    record = make_round(1, clients=clients)
    with closing(open_store(request.getfixturevalue(kind))) as store:
        store.start_run(make_run(), OWNER, START)
        assert store.record_round(record) is True
        assert store.record_round(record) is False
        (row,) = store.rounds(record.run_id)
        assert row.evidence_sha256 == plainly(record)
        assert row == record.summary(row.cumulative_emissions_kg)
        assert store.round(record.run_id, 1) == record


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_large_rounds_among_small_ones_are_added_up_in_their_order(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """A sum depends on it to the last bit; all databases agree with the store in memory."""
    sizes = (2, BESIDE_FROM_ROWS, 3, BESIDE_FROM_ROWS + 1, BESIDE_FROM_ROWS, 1)
    records = tuple(
        make_round(number, clients={str(node): 0.1 / (node + number) for node in range(size)})
        for number, size in enumerate(sizes, 1)
    )
    found = []
    for url in ("memory://", request.getfixturevalue(kind)):
        with closing(open_store(url)) as store:
            store.deliver(
                [
                    DeliveredRun(writer="w", info=make_run()),
                    DeliveredRounds(writer="w", run_id=records[0].run_id, records=records),
                ],
                START,
            )
            found.append((list(store.rounds(records[0].run_id)), store.run(records[0].run_id)))
    assert found[0] == found[1]
    sums = [row.cumulative_emissions_kg for row in found[1][0]]
    assert sums == sorted(sums, key=lambda kg: kg or 0.0)
    assert sums[-1] == found[1][1].totals.total_emissions_kg


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_of_a_large_round_whose_figures_fail_nothing_is_stored(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Though its rows were handed over before; the next round is none the worse for it."""
    good = make_round(1, clients={str(node): 0.5 for node in range(BESIDE_FROM_ROWS)})
    bad = good.model_copy(
        update={"reports": (*good.reports, make_report("x", 0.5, duration_s=float("nan")))}
    )
    with closing(open_store(request.getfixturevalue(kind))) as store:
        store.start_run(make_run(), OWNER, START)
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.record_round(bad)
        assert list(store.rounds(bad.run_id)) == []
        assert store.record_round(good) is True
        assert store.round(good.run_id, 1) == good


# --- times ---------------------------------------------------------------------------------------


def written(value: datetime) -> str:
    """A time as the standard library writes it."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@given(st.lists(st.none() | st.datetimes(timezones=st.timezones() | st.just(UTC)), max_size=5))
@example([datetime(1, 1, 2, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)])
@example([datetime(9999, 12, 31, 9, 59, 59, 1, tzinfo=timezone(timedelta(hours=14)))])
def test_a_time_is_written_in_utc_to_the_microsecond(values: list[datetime | None]) -> None:
    """Of whatever zone and year, one by one or many at once; unknown stays unknown."""
    try:
        expected = [None if value is None else written(value) for value in values]
    except OverflowError:  # in UTC it is before year 1 or after 9999
        return
    assert [utc_text(value) for value in values] == expected
    assert utc_texts(values) == expected
    assert utc_texts([*values, *values]) == expected * 2


def test_times_beyond_what_is_kept_in_mind() -> None:
    """More seconds than are remembered change nothing."""
    values = [START + timedelta(seconds=7 * n, microseconds=n) for n in range(10_000)]
    assert utc_texts(values) == list(map(written, values))
    assert list(map(utc_text, reversed(values))) == list(map(written, reversed(values)))


def test_a_time_without_a_zone_is_not_written() -> None:
    """Nobody knows when it was."""
    with pytest.raises(TypeError, match="offset-naive"):
        utc_text(datetime(2026, 1, 2))  # noqa: DTZ001  # the point of it


def test_every_time_of_a_row_is_written_as_text() -> None:
    """A field that is new is a time here, too."""
    report = make_report("1", 0.5, started_at=START, ended_at=START)
    columns = make_round(1).model_copy(update={"reports": (report,)}).report_columns
    assert not any(isinstance(value, datetime) for column in columns.written for value in column)
    assert [column[0] for column in columns.values] == list(astuple(report))
    assert isinstance(report, ReportRecord)


def test_a_seal_from_before_rounds_said_their_place_still_fits() -> None:
    """It was made by the program at its sixth schema, of the same rounds."""
    rows = [
        make_round(n, clients={"a": 0.5, "b": "missing"}, train_metrics={"loss": 0.5}).summary(
            0.5 * (n + 1)
        )
        for n in range(2)
    ]
    told = "861662c18725a6542e2d8cd9cc3dc8ec43521ad5259dc88ce172b155ecc98be7"
    assert run_sha256(make_run(), "completed", None, START, rows) == told
    placed = [replace(row, sequence=place) for place, row in enumerate(rows, 1)]
    assert run_sha256(make_run(), "completed", None, START, placed) != told
