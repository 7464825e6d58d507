"""Four clients on one machine, measured against one tracker of that machine: no joule counts twice.

Everything is real: server and clients are processes that talk over sockets and measure with
codecarbon, and the tracker beside them is codecarbon's own, with none of our code between. The
figures are printed; ``pytest -rP`` shows them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from subprocess import Popen
from sys import executable

import pytest

from telemetry.domain import ReportRecord, RoundRecord
from telemetry.store import open_store
from tests.fedserver.clients import wait_until
from tests.fedserver.servers import ServerProcess
from tests.proofs.machine_tracker import MachineTracker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
CLIENTS = 4
ELSEWHERE_S = 20.0
HERE_S = 5.0
RAM_W = 20.0
JOULES_PER_KWH = 3.6e6
FORCED = {"CODECARBON_FORCE_CPU_POWER": "100", "CODECARBON_FORCE_RAM_POWER": f"{RAM_W}"}


@dataclass(frozen=True)
class Measured:
    """A training of two rounds, and what the tracker showed beside it."""

    forced: bool
    tolerance: float
    elsewhere: RoundRecord
    here: RoundRecord
    tracker: MachineTracker

    def machine_kwh(self, record: RoundRecord) -> float:
        """The machine's energy while any client of the round worked, by the tracker."""
        starts, ends = zip(*(worked(r) for r in record.accepted), strict=True)
        return self.tracker.energy_kwh(min(starts), max(ends))


def worked(report: ReportRecord) -> tuple[float, float]:
    """A client's window, epoch seconds, in its own words."""
    assert report.started_at is not None
    assert report.ended_at is not None
    return report.started_at.timestamp(), report.ended_at.timestamp()


def naive_kwh(record: RoundRecord) -> float:
    """What the reports say, simply added up."""
    return fsum(r.energy_kwh or 0.0 for r in record.accepted)


def shown(word: str, kwh: float, machine_kwh: float) -> None:
    """Print a figure beside the tracker's."""
    print(f"{word:32}{kwh * JOULES_PER_KWH:9.1f} J {kwh / machine_kwh:7.3f} x the tracker's")  # noqa: T201


@pytest.fixture(
    scope="module",
    params=[pytest.param(True, id="forced"), pytest.param(False, id="as-found")],
)
def measured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Measured]:
    """Two rounds: in the first the clients are on one other host, in the second on the server's.

    With forced powers all meters agree on the hardware, and 5 % remain for their timing; without,
    each finds out by itself, and 20 % do.
    """
    forced: bool = request.param
    folder = tmp_path_factory.mktemp("forced" if forced else "found")
    environ = {k: v for k, v in os.environ.items() if k not in FORCED} | {"PYTHONPATH": str(ROOT)}
    if forced:
        environ |= FORCED
    command = [executable, "-m", "tests.proofs.measured_client"]
    with ExitStack() as stack:
        tracker = stack.enter_context(MachineTracker(environ))
        server = stack.enter_context(
            ServerProcess(
                folder, CLIENTS, environ=environ, rounds=2, round_timeout_s=60,
                clients__fraction_evaluate=0.0, clients__wait_timeout_s=90, clients__max_failed_rounds=1,
                emissions__server_scope="machine",
            )
        )  # fmt: skip
        wait_until(lambda: tracker.ready, 60)
        arguments = [server.address, str(ELSEWHERE_S), str(HERE_S)]
        clients = [Popen([*command, *arguments], cwd=ROOT, env=environ) for _ in range(CLIENTS)]
        for client in clients:
            stack.callback(client.wait)
            stack.callback(client.kill)
        assert server.wait(180) == 0, server.log
        assert [client.wait(10) for client in clients] == [0] * CLIENTS
        store = open_store(server.store_url)
        (run,) = store.runs()
        elsewhere, here = (store.round(run.info.run_id, number) for number in (1, 2))
        wait_until(lambda: tracker.shown_until() > here.ended_at.timestamp())
        yield Measured(forced, 0.05 if forced else 0.20, elsewhere, here, tracker)


def test_every_client_reported_the_whole_machine(measured: Measured) -> None:
    """The premise: four reports of one machine over the same window, four times its energy."""
    record = measured.elsewhere
    assert len(record.accepted) == CLIENTS
    assert {r.scope for r in record.accepted} == {"machine"}
    assert len({r.host_id for r in record.accepted}) == 1
    for report in record.accepted:
        start, end = worked(report)
        assert end - start == pytest.approx(ELSEWHERE_S, rel=0.1)
        if measured.forced:
            assert report.ram_kwh is not None
            assert report.ram_kwh * JOULES_PER_KWH / (end - start) == pytest.approx(RAM_W, rel=0.02)
    machine_kwh = measured.machine_kwh(record)
    shown("naive sum of four", naive_kwh(record), machine_kwh)
    assert naive_kwh(record) == pytest.approx(CLIENTS * machine_kwh, rel=measured.tolerance)


def test_clients_of_one_host_count_as_one_machine(measured: Measured) -> None:
    """On a host that is not the server's they come to what one tracker shows, in equal parts."""
    record = measured.elsewhere
    assert not any(r.on_server_host for r in record.accepted)
    machine_kwh = measured.machine_kwh(record)
    assert record.clients_energy_kwh is not None
    shown("clients, one other host", record.clients_energy_kwh, machine_kwh)
    assert record.clients_energy_kwh == pytest.approx(machine_kwh, rel=measured.tolerance)
    for report in record.accepted:
        assert report.counted_energy_kwh == pytest.approx(
            record.clients_energy_kwh / CLIENTS, rel=measured.tolerance
        )
    # The server's figure is another host's then: whole, and beside theirs.
    assert record.server_energy_kwh == record.host_energy_kwh


def test_with_the_server_on_their_host_the_total_is_the_machines(measured: Measured) -> None:
    """Server and clients together are the machine's round; the clients' part is their work's."""
    record = measured.here
    assert len(record.accepted) == CLIENTS
    assert all(r.on_server_host for r in record.accepted)
    round_kwh = measured.tracker.energy_kwh(
        record.started_at.timestamp(), record.ended_at.timestamp()
    )
    work_kwh = measured.machine_kwh(record)
    server_kwh, clients_kwh = record.server_energy_kwh, record.clients_energy_kwh
    assert server_kwh is not None
    assert clients_kwh is not None
    shown("naive: server and four", (record.host_energy_kwh or 0) + naive_kwh(record), round_kwh)
    shown("server and clients, one host", server_kwh + clients_kwh, round_kwh)
    shown("clients of it", clients_kwh, work_kwh)
    assert server_kwh + clients_kwh == pytest.approx(round_kwh, rel=measured.tolerance)
    assert clients_kwh == pytest.approx(work_kwh, rel=measured.tolerance)
    for report in record.accepted:
        assert report.counted_energy_kwh == pytest.approx(
            clients_kwh / CLIENTS, rel=measured.tolerance
        )
