"""docs/worked-example.md: each number of its tables is what the code, the store and the CSV give."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from telemetry.accounting import ParticipantFacts, ReceivedReport
from telemetry.domain import RoundRecord
from telemetry.exporters import FORMATS
from telemetry.store import open_store
from telemetry.testing import OWNER, START, make_run
from tests.telemetry.facts import FACTORS, SERVER_HOST, node, report, round_of, window

PAGE = (Path(__file__).parents[2] / "docs" / "worked-example.md").read_text(encoding="utf-8")
Row = dict[str, str]
HOSTS = {"lab": "a" * 12, "server's": SERVER_HOST}
MB = 1_000_000


def tables() -> list[list[Row]]:
    """The page's tables, each row by the words of its head."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        ]
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


HAPPENED, BY_CLIENT, BY_ROUND, FOURTH = tables()


def number(pattern: str) -> float:
    """A number that the text states."""
    (found,) = re.findall(pattern, PAGE)
    return float(found)


METERED_KWH = [float(x) for x in re.findall(r"\*\*([\d.]+) kWh\*\*", PAGE)]
OUR_FACTORS = replace(
    FACTORS,
    server_carbon_intensity_g_per_kwh=number(r"carbon intensity (\d+) g/kWh"),
    pue=number(r"PUE ([\d.]+)\."),
    network_kwh_per_gb=number(r"network_kwh_per_gb: ([\d.]+)"),
    impute_missing="`impute_missing: true`" in PAGE,
)


def received(row: Row) -> ReceivedReport | None:
    """The report that a row of the first table tells of."""
    if not row["said, kg"]:
        return None
    sent: dict[str, object] = {}
    if row["worked, s"]:
        begin, end = row["worked, s"].split(" to ")
        sent |= window(float(begin), float(end))
    if row["energy, kWh"]:
        sent |= {"energy_kwh": float(row["energy, kWh"])}
        sent |= {"carbon_intensity_g_per_kwh": float(row["its g/kWh"])}
    if row["host"] in HOSTS:
        sent |= {"host_id": HOSTS[row["host"]]}
    loopback = row["host"] == "loopback"
    return report(row["client"], float(row["said, kg"]), loopback=loopback, **sent)


def played(number_of_round: int, *more: ParticipantFacts) -> RoundRecord:
    """A round of the page, by the real code."""
    rows = [row for row in HAPPENED if row["round"] == str(number_of_round)]
    nodes = [
        node(row["client"], examples=int(row["examples"]), bytes_to=10 * MB, bytes_from=10 * MB)
        for row in rows
    ]
    reports = [each for row in rows if (each := received(row)) is not None]
    return round_of(
        *(replace(each, reported_round=number_of_round) for each in reports),
        nodes=(*nodes, *more),
        server_kwh=METERED_KWH[number_of_round - 1],
        factors=OUR_FACTORS,
        round=number_of_round,
    )


def same(stated: str, given: object) -> bool:
    """An empty cell is None or an empty cell; numbers agree to 1e-9."""
    if stated == "" or given in (None, ""):
        return stated == "" and given in (None, "")
    return float(stated) == pytest.approx(float(str(given)), rel=1e-9, abs=1e-15)


def test_the_page_has_what_it_promises() -> None:
    """Three clients, two rounds, two clients on one host, one silent, one absurd."""
    assert {row["client"] for row in HAPPENED} == {"A", "B", "C"}
    assert len(HAPPENED) == len(BY_CLIENT) == 6
    assert len(BY_ROUND) == 20
    assert {row["outcome"] for row in BY_CLIENT} == {"reported", "missing", "rejected"}
    assert METERED_KWH == [0.010, 0.012]


@pytest.mark.parametrize("row", BY_CLIENT, ids=lambda row: f"round {row['round']} {row['client']}")
def test_what_each_client_counts_for(row: Row) -> None:
    """Outcome, energy and emissions after the host rule; empty where nothing counts."""
    record = played(int(row["round"]))
    (part,) = (p for p in record.participants if p.node_id == row["client"])
    assert part.outcome == row["outcome"]
    counted = [r for r in record.reports if r.node_id == row["client"] and r.accepted]
    assert len(counted) == (row["outcome"] == "reported")
    energy, emissions = (
        (counted[0].counted_energy_kwh, counted[0].counted_emissions_kg)
        if counted
        else (None, None)
    )
    assert same(row["counts, kWh"], energy)
    assert same(row["counts, kg"], emissions)


def test_why_the_absurd_value_is_rejected() -> None:
    """For the reason that the page gives."""
    (rejected,) = (r for r in played(2).reports if not r.accepted)
    assert (rejected.node_id, rejected.rejection) == ("B", "implausible")
    assert "**B is rejected** as `implausible`" in PAGE


@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_the_run_as_it_is_stored_and_exported(backend: str, tmp_path: Path) -> None:
    """Every column of the last table, from the CSV of each store and from its rows."""
    url = "memory://" if backend == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"
    store = open_store(url)
    try:
        run = make_run(played(1).run_id, factors=OUR_FACTORS)
        store.start_run(run, OWNER, START)
        for number_of_round in (1, 2):
            store.record_round(played(number_of_round))
        stored = list(store.rounds(run.run_id))
        out = io.StringIO()
        FORMATS["csv"].write(store, run.run_id, out)
    finally:
        store.close()
    exported = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert len(stored) == len(exported) == 2
    for row in BY_ROUND:
        for place, words in enumerate(("round 1", "round 2")):
            assert same(row[words], exported[place][row["column"]]), (row, words)
            value = getattr(stored[place], row["column"])
            assert same(row[words], None if value is None else float(value)), (row, words)


def test_the_fourth_client() -> None:
    """Low, central and high of one silent client beside three reports."""
    stated = {row["bound"]: row["kg"] for row in FOURTH}
    imputed = played(1, node("D", examples=100)).imputation
    assert imputed is not None
    assert imputed.clients == 1
    assert same(stated["low"], imputed.low_kg)
    assert same(stated["central"], imputed.central_kg)
    assert same(stated["high"], imputed.high_kg)


def test_every_product_of_the_text_is_right() -> None:
    """``a × b × c = d``, with + − ÷ as well, wherever the text calculates."""
    text = re.sub(r"\s+", " ", re.sub(r"^\|.*$", "", PAGE, flags=re.MULTILINE))
    text = re.sub(r"(\d) (kWh/GB|kg/kWh|kWh|kg|GB|MB|s)\b", r"\1", text)
    sums = re.findall(r"((?:[\d.]+ [×÷+−] )+[\d.]*\d) = ([\d.]*\d)", text)
    assert len(sums) >= 15
    for left, right in sums:
        python = left.replace("×", "*").replace("÷", "/").replace("−", "-")
        assert eval(python) == pytest.approx(float(right), rel=1e-3), left  # noqa: S307  # our page
