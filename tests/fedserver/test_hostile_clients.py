"""Clients whose every word is meant to do harm, in a training with a real server process."""

from __future__ import annotations

import csv
import io
import json
import re
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry.exporters.cells import FORMULA_STARTS
from tests.fedserver.clients import ClientThread, Script
from tests.fedserver.servers import ServerProcess
from tests.telemetry.hostile import PAYLOADS

SAID = ("client_name", "country", "tracker", "scope", "host_id", "sensor", "started_at")
RUN_NAME = PAYLOADS["log line"][:64]
LINE = re.compile(r"\d\d:\d\d:\d\d (INFO|WARNING|ERROR) ")


def hostile(text: str, number: int) -> Script:
    """A client that says the text wherever it may say one; some of what it counts is refused."""
    words = {f"emissions.{name}": text for name in SAID}
    emissions = -1.0 if number % 4 == 3 else text if number % 4 == 2 else 1e-7
    return Script(
        metrics={"emissions": emissions, **words, text: 0.5, f"{text}#2": text},
        evaluate_metrics={text: 0.5, f"emissions.{text}": 1.0},
        fit="status" if number % 8 == 5 else "good",
    )


@dataclass
class Told:
    """What came of it."""

    log: str
    page: str
    metrics: str
    csv: str
    json: str


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """One client for each text, two rounds, under a name that is hostile, too."""
    folder = tmp_path_factory.mktemp("hostile")
    options: dict[str, Any] = {
        "run_name": RUN_NAME,
        "telemetry__http__linger_s": 60,
    }
    with ServerProcess(folder, len(PAYLOADS), **options) as server, ExitStack() as stack:
        for number, text in enumerate(PAYLOADS.values()):
            stack.push(ClientThread(server.address, hostile(text, number)))
        server.wait_for("stays up", 90)
        address = server.metrics_url
        pages = [httpx.get(a, trust_env=False) for a in (address.removesuffix("metrics"), address)]
        assert [answer.status_code for answer in pages] == [200, 200]
        server.signal(signal.SIGTERM)
        assert server.wait(20) == 0
    (run,) = (folder / "runs").iterdir()
    files = [(run / name).read_bytes().decode() for name in ("footprint.csv", "run.json")]
    return Told(server.log, *(answer.text for answer in pages), *files)


def test_no_line_of_the_log_is_forged(told: Told) -> None:
    """Each is the server's, and nothing in it commands a terminal."""
    lines = told.log.split("\n")
    assert len(lines) > 5
    assert any("forged" in line for line in lines), "the run's name is in it"
    for line in lines:
        assert LINE.match(line), line
        assert line.isprintable(), ascii(line)


def test_the_page_and_the_metrics_hold_text(told: Told) -> None:
    """No element of a client's, no sample; both rounds are there."""
    assert not re.search(r"<(script|img)[^>]*(alert|onerror)", told.page)
    families = {family.name: family for family in text_string_to_metric_families(told.metrics)}
    assert not [name for name in families if "forged" in name]
    played = {s.labels["status"]: s.value for s in families["fl_rounds"].samples}
    assert (played["partial"], sum(played.values())) == (2, 2)
    labels = {value for f in families.values() for s in f.samples for value in s.labels.values()}
    assert RUN_NAME in labels


def test_the_files_hold_text(told: Told) -> None:
    """As many cells in each row, none a formula; the JSON has the names as they were said."""
    rows = list(csv.reader(io.StringIO(told.csv, newline="")))
    assert len(rows) == 1 + 3
    assert {len(row) for row in rows} == {len(rows[0])}
    for cell in (cell for row in rows for cell in row):
        assert not cell.startswith(FORMULA_STARTS), cell
    document = json.loads(told.json)
    assert PAYLOADS["HTML"] in json.dumps(document, ensure_ascii=False).replace('\\"', '"')
