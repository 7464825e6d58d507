"""The CSV exports."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.domain import RoundSummary
from telemetry.errors import RunNotFound, StoreError
from telemetry.exporters import FORMATS, clients_csv, codecarbon_csv, rounds_csv
from telemetry.exporters.cells import neutral
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_report, make_round, make_run
from tests.telemetry.views import (
    BACKENDS,
    Content,
    Driver,
    a_run,
    column_sum,
    contents,
    exported,
    opened,
    steps,
    table,
)

CONTRACT = (
    "run_id,run_name,round,attempt,status,started_at,ended_at,duration_s,participants,reported,"
    "missing,rejected,failed,coverage,complete,evaluate_reported,reports_without_host,"
    "server_energy_kwh,clients_energy_kwh,clients_energy_reports,server_emissions_kg,"
    "clients_emissions_kg,total_emissions_kg,cumulative_emissions_kg,"
    "clients_reported_emissions_kg,server_sensor,server_carbon_intensity_g_per_kwh,pue,"
    "bytes_to_clients,bytes_from_clients,communication_emissions_kg_estimated,"
    "imputed_emissions_kg,estimated_total_emissions_kg,privacy_epsilon"
)
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
NUMBERS = [
    name
    for name in rounds_csv.ROUND_COLUMNS
    if name not in ("status", "started_at", "ended_at", "complete", "server_sensor")
]


@pytest.fixture(params=BACKENDS)
def store(request: pytest.FixtureRequest, sqlite_url: str) -> Iterator[Store]:
    """An empty store of each kind."""
    with opened(request.param, sqlite_url) as kept:
        yield kept


@pytest.fixture(scope="module", params=BACKENDS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Store]:
    """One store of each kind for the many runs of a property."""
    folder = tmp_path_factory.mktemp("shared")
    with opened(request.param, f"sqlite:///{folder}/shared.db") as kept:
        yield kept


def _number(row: RoundSummary, name: str) -> float | None:
    if not row.tracked and name in ("server_carbon_intensity_g_per_kwh", "pue"):
        return None
    found: float | None = getattr(row, name) if hasattr(row, name) else getattr(row.factors, name)
    return found


def test_the_columns_are_those_of_the_contract() -> None:
    """Column names and their order are what users read by."""
    assert ",".join(rounds_csv.COLUMNS) == CONTRACT


@given(played=steps)
def test_a_row_is_its_round(shared: Store, played: list[tuple[str, Content]]) -> None:
    """Every figure of a closed round reads back from the CSV, exactly; unknown is an empty cell."""
    driver = Driver(shared)
    driver.start()
    for step, content in played:
        driver.play(step, content)
    rows = table(shared, run_id=driver.run_id)
    stored = list(shared.rounds(driver.run_id))
    shared.finish_run(driver.run_id, "completed", START)
    assert len(rows) == len(stored)
    for cells, row in zip(rows, stored, strict=True):
        for name in NUMBERS:
            known = float(cells[name]) if cells[name] else None
            assert known == _number(row, name), name
        assert cells["status"] == row.status
        assert cells["complete"] == str(int(row.complete or False))
        metrics = {
            name.removeprefix("train_"): float(cell)
            for name, cell in cells.items()
            if name.startswith("train_") and cell
        }
        assert metrics == dict(row.train_metrics)


def test_a_round_that_is_open_has_no_row(store: Store) -> None:
    """Only closed rounds are exported; each attempt at one has its own row."""
    a_run(
        store,
        make_round(0),
        make_round(1, status="failed"),
        make_round(1, attempt=2),
        make_round(2, closed=False),
    )
    rows = table(store)
    assert [(row["round"], row["attempt"], row["status"]) for row in rows] == [
        ("0", "1", "completed"),
        ("1", "1", "failed"),
        ("1", "2", "completed"),
    ]


def test_missing_and_zero_are_two_facts(store: Store) -> None:
    """A meter that failed and a silent fleet leave cells empty; a reported 0 is a 0."""
    a_run(
        store,
        make_round(1, server_kwh=None, clients={"a": "missing"}),
        make_round(2, server_kwh=0.0, clients={"a": 0.0}),
    )
    unknown, zero = table(store)
    names = ("server_energy_kwh", "server_emissions_kg", "clients_emissions_kg")
    assert [unknown[name] for name in (*names, "total_emissions_kg")] == [""] * 4
    assert [zero[name] for name in (*names, "total_emissions_kg")] == ["0.0"] * 4
    assert unknown["missing"] == "1"
    assert zero["missing"] == "0"


def test_an_untracked_round_shows_its_training_only(store: Store) -> None:
    """Without tracking all of emissions, energy and reports is empty and training is kept."""
    record = make_round(1, clients={"a": "failed"}, tracked=False, laps=(), connected=1)
    a_run(store, record.model_copy(update={"train_metrics": {"accuracy": 0.5}}), tracked=False)
    (row,) = table(store)
    filled = {name for name, cell in row.items() if cell}
    assert filled == {
        "run_id",
        "run_name",
        "round",
        "attempt",
        "status",
        "started_at",
        "ended_at",
        "duration_s",
        "participants",
        "failed",
        "train_accuracy",
    }


def test_times_are_iso_8601_in_utc(store: Store) -> None:
    """A time reads the same everywhere."""
    elsewhere = START.astimezone(timezone(timedelta(hours=2)))
    a_run(store, make_round(1, started_at=elsewhere))
    (row,) = table(store)
    assert row["started_at"] == "2026-01-02T03:04:05.000000Z"


def test_metric_columns_are_alphabetical_and_before_the_seal(store: Store) -> None:
    """Names from all rounds make columns, train first; a round without one has an empty cell."""
    a_run(
        store,
        make_round(1, train_metrics={"z": 1.0, "a": 2.0}),
        make_round(2, train_metrics={"m": 3.0}, evaluate_metrics={"b": 4.0, "a": 1e-300}),
        make_round(3, train_metrics=dict.fromkeys("gfedc", 0.0)),
    )
    rows = table(store)
    names = [*(f"train_{name}" for name in "acdefgmz"), "evaluate_a", "evaluate_b"]
    assert list(rows[0])[-11:] == [*names, "run_sha256"]
    assert [row["train_m"] for row in rows] == ["", "3.0", ""]
    assert rows[1]["evaluate_a"] == "1e-300"


def test_text_is_quoted_as_rfc_4180_says(store: Store) -> None:
    """Lines end with CR LF; commas, quotes and line ends in a name survive."""
    a_run(store, make_round(1), run_name='a "run",\nof two lines')
    text = exported(store)
    assert text.count("\r\n") == 2
    assert table(store)[0]["run_name"] == 'a "run",\nof two lines'


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_no_text_is_read_as_a_formula(store: Store, start: str) -> None:
    """A name that a spreadsheet would run gets an apostrophe; so does a client's text."""
    evil = f"{start}HYPERLINK()"
    report = make_report("a", "negative", rejected_value=evil)
    a_run(store, make_round(1, reports=(report,)), run_name=evil)
    assert table(store)[0]["run_name"] == "'" + evil
    assert table(store, "clients-csv")[0]["rejected_value"] == "'" + evil
    assert table(store, "clients-csv")[0]["run_name"] == "'" + evil


@given(st.text())
def test_other_text_stays_as_it_is(text: str) -> None:
    """Only the first character decides, and only an apostrophe is ever added."""
    dangerous = text[:1] in FORMULA_STARTS
    assert neutral(text) == ("'" + text if dangerous else text)


def test_negative_numbers_are_numbers(store: Store) -> None:
    """The apostrophe is for text: a negative loss reads back as a number."""
    a_run(store, make_round(1, train_metrics={"loss": -0.5}))
    assert table(store)[0]["train_loss"] == "-0.5"


# --- clients-csv -------------------------------------------------------------------------------


def test_each_report_has_a_row(store: Store) -> None:
    """Accepted, late and rejected reports each have one, raw figures beside the counted ones."""
    halved = make_report("a", 0.002, counted_emissions_kg=0.001, on_server_host=True)
    late = make_report("b", 0.003, late=True, reported_round=0)
    a_run(
        store,
        make_round(1, reports=(halved, late, make_report("c", "not_finite"))),
    )
    rows = {row["outcome"]: row for row in table(store, "clients-csv")}
    assert set(rows) == {"accepted", "late", "rejected"}
    assert rows["accepted"]["reported_emissions_kg"] == "0.002"
    assert rows["accepted"]["counted_emissions_kg"] == "0.001"
    assert rows["accepted"]["on_server_host"] == "1"
    assert (rows["late"]["round"], rows["late"]["reported_round"]) == ("1", "0")
    assert rows["rejected"]["rejection"] == "not_finite"
    assert rows["rejected"]["rejected_value"] == "made up"
    assert rows["rejected"]["counted_emissions_kg"] == ""


def test_counted_reports_add_up_to_the_round(store: Store) -> None:
    """The rows of a round sum to the round's clients' figure."""
    a_run(store, make_round(1, clients={"a": 0.1, "b": 0.7, "c": "missing"}))
    (row,) = table(store)
    summed = column_sum(table(store, "clients-csv"), "counted_emissions_kg")
    assert summed == pytest.approx(float(row["clients_emissions_kg"]), rel=1e-12)


def test_clients_columns_are_named_once() -> None:
    """No two columns share a name."""
    assert len(set(clients_csv.COLUMNS)) == len(clients_csv.COLUMNS)


# --- codecarbon-csv ----------------------------------------------------------------------------


def test_codecarbons_columns_are_the_installed_ones() -> None:
    """The header is that of the installed codecarbon, so its tools can read and append to it."""
    from codecarbon.output_methods.emissions_data import EmissionsData

    assert tuple(item.name for item in fields(EmissionsData)) == codecarbon_csv.COLUMNS
    assert len(codecarbon_csv.COLUMNS) == 38


def test_codecarbons_own_reader_takes_the_file(store: Store, tmp_path: Path) -> None:
    """Codecarbon's file output finds its own header: it appends instead of starting again."""
    from codecarbon.output_methods.emissions_data import EmissionsData
    from codecarbon.output_methods.file import FileOutput

    a_run(store, make_round(1, clients={"a": 0.1}))
    FORMATS["codecarbon-csv"].save(store, RUN_ID, tmp_path / "emissions.csv")
    assert FileOutput("emissions.csv", str(tmp_path)).has_valid_headers(
        EmissionsData(*codecarbon_csv.COLUMNS)  # type: ignore[arg-type]  # only names matter here
    )


def test_codecarbon_rows_sum_to_the_run(store: Store) -> None:
    """Each row is one round's own amount; rounds of unknown total are left out and counted."""
    a_run(
        store,
        make_round(0),
        make_round(1, clients={"a": 0.1}),
        make_round(2, server_kwh=None, clients={"a": "missing"}),
    )
    out = io.StringIO(newline="")
    notes = FORMATS["codecarbon-csv"].write(store, RUN_ID, out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    assert len(rows) == 2
    assert notes == ["1 round left out: total emissions not known"]
    total = store.run(RUN_ID).totals.total_emissions_kg
    assert column_sum(rows, "emissions") == pytest.approx(total, rel=1e-12)
    assert rows[1]["timestamp"] == "2026-01-02T03:06:05"
    assert rows[1]["country_iso_code"] == "ESP"


# --- every format ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_no_export_names_a_machine_or_a_connection(store: Store, name: str) -> None:
    """Node ids, host ids and the owner never leave the store."""
    a_run(
        store,
        make_round(1, clients={"node-one": 0.1, "node-two": "missing", "node-three": "negative"}),
        server_host_id="5e1fdeadbeef",
    )
    text = exported(store, name)
    assert "digits" in text
    for secret in ("node-", "host-of-", "5e1fdeadbeef", OWNER.host, OWNER.token):
        assert secret not in text


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_without_rounds_can_be_exported(store: Store, name: str) -> None:
    """An export of a run that has just begun is an empty table, not an error."""
    a_run(store)
    assert exported(store, name)


@pytest.mark.parametrize("name", FORMATS)
def test_an_unknown_run_is_not_found(store: Store, name: str) -> None:
    """A run that is not stored raises before anything is written."""
    out = io.StringIO()
    with pytest.raises(RunNotFound):
        FORMATS[name].write(store, "no-such-run", out)
    assert out.getvalue() == ""


class StoreThatBreaks(InMemoryStore):
    """Fails in the middle of reading rounds, and counts how many it handed out."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after
        self.handed_out = 0

    def rounds(
        self, run_id: str, *, closed_only: bool = True, start: tuple[int, int] | None = None
    ) -> Iterator[RoundSummary]:
        """As the store, but only so many."""
        for row in super().rounds(run_id, closed_only=closed_only, start=start):
            if self.handed_out >= self.after:
                raise StoreError(self.url, "the disk is gone")
            self.handed_out += 1
            yield row


@pytest.mark.parametrize("name", ["csv", "codecarbon-csv", "json"])
def test_a_file_is_whole_or_the_old_one(tmp_path: Path, name: str) -> None:
    """A store that fails half-way leaves the older file and no draft."""
    store = StoreThatBreaks(after=10_000)
    a_run(store, *(make_round(number) for number in range(2)))
    path = tmp_path / "run"
    FORMATS[name].save(store, RUN_ID, path)
    older = path.read_bytes()
    store.after = store.handed_out + 1
    with pytest.raises(StoreError):
        FORMATS[name].save(store, RUN_ID, path)
    assert path.read_bytes() == older
    assert [found.name for found in tmp_path.iterdir()] == ["run"]


class Sink(io.StringIO):
    """Notes how many rounds were read when the first row was written."""

    def __init__(self, store: StoreThatBreaks) -> None:
        super().__init__(newline="")
        self.store = store
        self.read_at_write: list[int] = []

    def write(self, text: str) -> int:
        """As a file."""
        self.read_at_write.append(self.store.handed_out)
        return super().write(text)


@pytest.mark.parametrize("name", ["csv", "codecarbon-csv", "json"])
def test_rows_are_written_as_they_are_read(name: str) -> None:
    """No format gathers the run in memory first: between two rounds read, one is written."""
    store = StoreThatBreaks(after=10_000)
    a_run(store, *(make_round(number, clients={"a": 0.1}) for number in range(50)))
    sink = Sink(store)
    FORMATS[name].write(store, RUN_ID, sink)
    read = sorted(set(sink.read_at_write))
    assert len(read) >= 50


@given(content=contents)
def test_saved_bytes_are_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, content: Content
) -> None:
    """A file holds the text as UTF-8, its line ends untouched."""
    store = InMemoryStore()
    store.start_run(make_run(run_name="Größe, µg"), OWNER, START)
    driver = Driver(store, run_id=RUN_ID)
    driver.play("close", content)
    path = tmp_path_factory.mktemp("saved") / "run.csv"
    FORMATS["csv"].save(store, RUN_ID, path)
    assert path.read_bytes() == exported(store).encode()


# --- the seal, and rows that are not kept ----------------------------------------------------------


def test_the_seal_is_the_last_column_of_every_row(store: Store) -> None:
    """After the training metrics, so that no column moves; empty while the run goes on."""
    a_run(store, make_round(1, train_metrics={"loss": 0.5}), make_round(2))
    assert [row["run_sha256"] for row in table(store)] == ["", ""]
    store.finish_run(RUN_ID, "completed", START)
    rows = table(store)
    assert list(rows[0])[-2:] == ["train_loss", "run_sha256"]
    assert {row["run_sha256"] for row in rows} == {store.run(RUN_ID).sha256}


def test_rows_of_clients_that_were_not_kept_are_told(store: Store) -> None:
    """An empty table of reports is not one of a run without reports."""
    a_run(store, make_round(1, clients={"a": 0.5}), make_round(2))
    notes = FORMATS["clients-csv"].write(store, RUN_ID, io.StringIO())
    assert notes == []
    store.record_round(make_round(3, clients={"a": 0.5}, client_rows=False))
    (note,) = FORMATS["clients-csv"].write(store, RUN_ID, io.StringIO())
    assert note.startswith("1 of 3 rounds have no rows here")
    assert len(table(store, "clients-csv")) == 1


def test_marks_stand_in_the_last_column_of_the_clients(store: Store) -> None:
    """Of a report that bears none the cell is empty."""
    odd = make_report("a", 0.5, looks_cumulative=True, outlier=True)
    plain = make_report("b", 0.25)
    a_run(store, make_round(1, clients={"a": 0.5, "b": 0.25}, reports=(odd, plain)))
    rows = table(store, "clients-csv")
    assert [row["flags"] for row in rows] == ["looks_cumulative,outlier", ""]
    assert list(rows[0])[-1] == "flags"
