"""docs/telemetry-privacy.md lists what is stored of a client, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from telemetry.domain import CLIENT_BUCKETS_G, ParticipantRecord, ReportRecord, field_names
from telemetry.exporters.run_json import NOT_WRITTEN
from telemetry.store.sql.tables import metadata

PAGE = (Path(__file__).parent.parent / "docs" / "telemetry-privacy.md").read_text(encoding="utf-8")
RECORDS = {"participants": ParticipantRecord, "reports": ReportRecord}
KEY = {"run_id", "round", "attempt"}
"""Stand with the run and the round in an export."""


def rows(table: str) -> list[list[str]]:
    """Cells of the table under the heading that names it."""
    (section,) = re.findall(
        rf"^## [^\n]*`{table}`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("table", RECORDS)
def test_every_column_is_listed_with_a_reason(table: str) -> None:
    """In the order of the table; a new column fails here until somebody says why it is kept."""
    listed = [cells[0].strip("`") for cells in rows(table)]
    assert sorted(listed) == sorted(column.name for column in metadata.tables[table].columns)
    for cells in rows(table):
        assert all(cells), cells


@pytest.mark.parametrize("table", RECORDS)
def test_what_is_exported_is_called_so(table: str) -> None:
    """By the JSON export, which is the one that writes most."""
    written = (set(field_names(RECORDS[table])) - NOT_WRITTEN) | KEY
    told = {cells[0].strip("`"): cells[3] for cells in rows(table)}
    assert set(told.values()) == {"yes", "no"}
    assert {name for name, word in told.items() if word == "yes"} == written


def test_no_other_table_has_a_client() -> None:
    """What names a connection or a client stands in those two."""
    having = {
        name
        for name, table in metadata.tables.items()
        if {"node_id", "client", "host_id"} & set(table.columns.keys())
    }
    assert having == set(RECORDS)


def test_the_distribution_has_as_many_classes_as_it_says() -> None:
    """The last one is open."""
    assert f"each of {len(CLIENT_BUCKETS_G) + 1} classes" in " ".join(PAGE.split())
