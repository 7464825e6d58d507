"""Telemetry that fails while a real training runs: the same model, one warning a kind, a counter.

Each part is broken from the first client on, in the process of the server; what a file system, a
database or a missing package does to a server process is in `test_server_process`.
"""

from __future__ import annotations

import logging
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedserver.assemble import Server
from fedserver.leftovers import FILE_NAME
from fedserver_hooks.meter import ReplayMeter
from fedserver_hooks.readings import Reading
from telemetry import writer
from telemetry.errors import StoreError
from tests.fedserver.clients import Script
from tests.fedserver.servers import WATTS, Training, train

ROUNDS = 4
SCRIPTS = [
    Script(add=0.1, examples=7, metrics={"emissions": 1e-6}),
    Script(add=0.7, examples=13, metrics={"emissions": 2e-6}),
]


class FailingMeter(ReplayMeter):
    """Reads while ``broken`` is not set, and raises what no meter should afterwards."""

    broken = False

    def read(self) -> Reading:
        """Fails like a driver that is gone."""
        if self.broken:
            raise RuntimeError("the driver is gone")
        return super().read()


@dataclass
class Scrapes:
    """What came of asking for ``/metrics`` in each round."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    last: str = ""

    def ask(self) -> None:
        """Once more."""
        try:
            with urllib.request.urlopen(self.url, timeout=10) as page:  # noqa: S310 - our own address
                self.statuses.append(page.status)
                self.last = page.read().decode()
        except urllib.error.HTTPError as error:
            self.statuses.append(error.code)

    def errors(self, stage: str) -> float:
        """``fl_telemetry_errors_total`` of a stage, in the last page that came."""
        found = re.search(rf'^fl_telemetry_errors_total{{stage="{stage}"}} (\S+)$', self.last, re.M)
        assert found, self.last
        return float(found[1])


Break = Callable[[Server, FailingMeter, int], None]
"""Called before each evaluation, with the number of the round: breaks something, or mends it."""


def trained(folder: Path, spoil: Break) -> tuple[Training, Scrapes]:
    """A training whose telemetry is spoilt, scraped once a round while it is."""
    meter = FailingMeter(WATTS, resolution_s=0.0)
    scrapes = Scrapes()

    def attach(server: Server, url: str) -> None:
        scrapes.url = url
        inner = server.strategy.strategy.strategy  # type: ignore[attr-defined]  # within the guard
        evaluate = inner.configure_evaluate

        def evaluating(number: int, *args: Any) -> Any:
            spoil(server, meter, number)
            scrapes.ask()
            time.sleep(0.05)
            return evaluate(number, *args)

        inner.configure_evaluate = evaluating

    done = train(folder, SCRIPTS, meter=meter, rounds=ROUNDS, on_ready=attach)
    return done, scrapes


def nothing(server: Server, meter: FailingMeter, number: int) -> None:
    """All is well."""


def no_meter(server: Server, meter: FailingMeter, number: int) -> None:
    """Every reading fails."""
    meter.broken = True


def no_store_for_a_while(error: Exception) -> Break:
    """Nothing can be written until the last round."""

    def refuse(record: Any) -> bool:
        raise error

    def spoil(server: Server, meter: FailingMeter, number: int) -> None:
        store: Any = server.recorder.store
        if number == 1:
            store.record_round = refuse
        elif number == ROUNDS:
            del store.record_round

    return spoil


def no_exporter_for_a_while(server: Server, meter: FailingMeter, number: int) -> None:
    """What the exporter asks the store for fails until the last round."""
    store: Any = server.recorder.store

    def refuse(*_: object, **__: object) -> Any:
        raise StoreError(store.url, "the disk is gone")

    if number == 1:
        store.exposed = refuse
    elif number == ROUNDS:
        del store.exposed


@pytest.fixture(scope="module")
def without_a_fault(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of the same training where nothing breaks."""
    done, scrapes = trained(tmp_path_factory.mktemp("sound"), nothing)
    assert scrapes.statuses == [200] * ROUNDS
    return done.model()


@pytest.mark.parametrize(
    ("spoil", "stage", "warnings"),
    [
        pytest.param(no_meter, "meter", 1, id="meter"),
        pytest.param(
            no_store_for_a_while(StoreError("sqlite:///x", "database is locked")), "store", 1,
            id="store",
        ),
        pytest.param(no_store_for_a_while(OSError("disk")), "store", 1, id="store, by surprise"),
        pytest.param(no_exporter_for_a_while, "scrape", 1, id="exporter"),
    ],
)  # fmt: skip
def test_the_model_is_the_same_and_it_is_said_once(
    spoil: Break,
    stage: str,
    warnings: int,
    without_a_fault: bytes,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever breaks: trained to the end, every round on record, each failure in the counter."""
    monkeypatch.setattr(writer, "RETRY_S", (0.02,) * 200)
    with caplog.at_level(logging.WARNING):
        done, scrapes = trained(tmp_path, spoil)
    assert done.outcome.exit_code == 0
    assert done.model() == without_a_fault
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == warnings, said
    assert scrapes.errors(stage) >= 1
    assert [row.round for row in done.rounds] == list(range(ROUNDS + 1))
    assert [row.reported for row in done.rounds[1:]] == [2] * ROUNDS
    if stage == "meter":
        assert done.rounds[ROUNDS].server_emissions_kg is None
        assert done.rounds[ROUNDS].clients_emissions_kg is not None
    else:
        assert all(row.server_emissions_kg is not None for row in done.rounds)


def test_what_an_earlier_server_left_unreadable_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Before there is a /metrics, and so from its first page on; the training goes its way."""
    old = tmp_path / "runs" / "20260101-000000-abcdef" / FILE_NAME
    old.parent.mkdir(parents=True)
    old.write_text("{}")
    with caplog.at_level(logging.WARNING):
        done, scrapes = trained(tmp_path, nothing)
    assert done.outcome.exit_code == 0
    assert scrapes.errors("store") == 1
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [str(old) in line for line in said] == [True]
