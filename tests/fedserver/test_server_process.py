"""``fedserver run`` as a process of its own: from start to scrape, and every way to end it."""

from __future__ import annotations

import csv
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry.store import open_store
from telemetry.verify import verify_run
from tests.fedserver.clients import ROOT, ClientProcess, Script, wait_until
from tests.fedserver.servers import ServerProcess
from tests.tools import require_tool

REPORTS = Script(metrics={"emissions": 1e-7}, model=((64, 32), (32,)))
HANGS = Script(fit="hang", hang_s=25)


def get(url: str) -> str:
    """A page, as text."""
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own servers
        text: str = answer.read().decode()
        return text


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of a /metrics page by name and labels (without the run's id)."""
    return {
        (s.name, tuple(sorted((k, v) for k, v in s.labels.items() if k != "run_id"))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


# --- the whole way ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole_way(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Server process, two client processes, real codecarbon; scraped at the end, before it goes."""
    folder = tmp_path_factory.mktemp("whole-way")
    slow = Script(**{**REPORTS.__dict__, "fit": "hang", "hang_s": 0.4})
    with ServerProcess(folder, 2, rounds=4, telemetry__http__linger_s="forever") as server:
        with ClientProcess(server.address, slow), ClientProcess(server.address, slow):
            server.wait_for(r"run \S+ completed", 60)
        scraped = get(server.metrics_url)
        server.signal(signal.SIGTERM)
        code = server.wait()
        return {
            "folder": folder,
            "url": server.store_url,
            "metrics": samples(scraped),
            "code": code,
            "log": server.log,
        }


def test_a_run_leaves_csv_json_and_model(whole_way: Any) -> None:
    """The artefacts are in the run's folder, whole."""
    (folder,) = (whole_way["folder"] / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["footprint.csv", "model.npz", "run.json"]
    assert json.loads((folder / "run.json").read_text())


def test_the_seal_is_in_everything_that_a_run_leaves(whole_way: Any) -> None:
    """Store, JSON, CSV and the line with which it ended have the same; it is verified."""
    store = open_store(whole_way["url"])
    (run,) = store.runs()
    found = verify_run(store, run.run_id)
    store.close()
    assert (found.differences, found.unverified) == ((), ())
    folder = whole_way["folder"] / "runs" / run.run_id
    assert json.loads((folder / "run.json").read_text())["sha256"] == run.sha256
    with (folder / "footprint.csv").open(newline="") as file:
        assert {row["run_sha256"] for row in csv.DictReader(file)} == {run.sha256}
    assert run.sha256 is not None
    assert f", sealed {run.sha256[:12]}\n" in whole_way["log"]


def test_store_metrics_and_csv_agree(whole_way: Any) -> None:
    """Three views of one run, to 1e-9 relative; every round is metered to at least 95 %."""
    store = open_store(whole_way["url"])
    (run,) = store.runs()
    rows = list(store.rounds(run.run_id))
    store.close()
    (path,) = (whole_way["folder"] / "runs").glob("*/footprint.csv")
    with path.open(newline="") as file:
        parsed = list(csv.DictReader(file))
    assert [int(row["round"]) for row in parsed] == [0, 1, 2, 3, 4]
    for column, component in (("server", "server"), ("clients", "clients")):
        in_csv = sum(float(row[f"{column}_emissions_kg"] or 0) for row in parsed)
        in_store = getattr(run.totals, f"{column}_emissions_kg")
        key = ("fl_emissions_co2eq_grams_total", (("component", component),))
        assert in_csv == pytest.approx(in_store, rel=1e-9)
        assert whole_way["metrics"][key] == pytest.approx(in_store * 1000, rel=1e-9)
    for row in rows[1:]:
        assert row.metered_share is not None
        assert row.metered_share >= 0.95, row
        assert row.reported == 2
        assert row.host_energy_kwh is not None
        assert row.server_energy_kwh is not None
        assert row.clients_energy_kwh is not None
        assert row.server_energy_kwh + row.clients_energy_kwh == pytest.approx(
            row.host_energy_kwh, rel=1e-9
        )


def test_the_rows_add_up_to_the_run(whole_way: Any) -> None:
    """Round 0 to the last: seconds from start to end, no gap and no overlap."""
    store = open_store(whole_way["url"])
    (run,) = store.runs()
    rows = list(store.rounds(run.run_id))
    store.close()
    assert run.ended_at is not None
    assert rows[0].started_at == run.info.started_at
    assert [r.started_at for r in rows[1:]] == [r.ended_at for r in rows[:-1]]
    assert sum(r.duration_s for r in rows) == pytest.approx(
        (run.ended_at - run.info.started_at).total_seconds(), abs=1e-5
    )


def test_one_line_a_round_in_the_log(whole_way: Any) -> None:
    """Without a terminal too: status, time, clients, metric, grams, coverage."""
    lines = [line for line in whole_way["log"].splitlines() if "round " in line]
    assert len(lines) == 4
    assert "round 1/4 completed in" in lines[0]
    for part in ("2/2 clients", "accuracy 0.5", " g (server ", ", clients ", "coverage 2/2"):
        assert part in lines[0]


def test_a_signal_while_it_lingers_ends_it_with_the_runs_own_code(whole_way: Any) -> None:
    """The run had completed: exit code 0, and it would have lingered for ever."""
    assert whole_way["code"] == 0


def test_runs_list_show_and_export_from_the_command_line(whole_way: Any) -> None:
    """What the store knows can be had without the server."""
    fedserver = ["--store", whole_way["url"]]
    (path,) = (whole_way["folder"] / "runs").glob("*/footprint.csv")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "fedserver", "runs", *arguments, *fedserver],
            cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    run_id = path.parent.name
    assert run_id in run("list").stdout
    shown = run("show", run_id[:15]).stdout
    assert "modelled" in shown or "measured" in shown
    exported = run("export", "latest")
    assert exported.stdout.splitlines() == path.read_text().splitlines()
    assert run_id in exported.stderr
    missing = run("show", "no-such-run")
    assert missing.returncode == 2
    assert "no-such-run" in missing.stderr
    assert run_id in missing.stderr
    assert "Traceback" not in missing.stderr


@pytest.mark.slow
def test_a_real_prometheus_scrapes_the_run(tmp_path: Path) -> None:
    """Prometheus itself reads the page while the run trains, and its sum is the store's."""
    prometheus = require_tool("prometheus")
    slow = Script(**{**REPORTS.__dict__, "fit": "hang", "hang_s": 0.6})
    with ServerProcess(tmp_path, 2, rounds=6, telemetry__http__linger_s="forever") as server:
        target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: fl, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        listen = "127.0.0.1:19464"
        scraper = subprocess.Popen(
            [
                prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address={listen}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            with ClientProcess(server.address, slow), ClientProcess(server.address, slow):
                server.wait_for(r"run \S+ completed", 60)
            store = open_store(server.store_url)
            expected = store.runs()[0].totals.total_emissions_kg
            store.close()
            assert expected is not None

            def value() -> float | None:
                query = "sum(fl_emissions_co2eq_grams_total)"
                answer = json.loads(get(f"http://{listen}/api/v1/query?query={query}"))
                found = answer["data"]["result"]
                return float(found[0]["value"][1]) if found else None

            wait_until(lambda: value() == pytest.approx(expected * 1000, rel=1e-9), 20)
            resets = json.loads(
                get(
                    f"http://{listen}/api/v1/query?query=resets(fl_emissions_co2eq_grams_total[5m])"
                )
            )
            assert all(float(r["value"][1]) == 0 for r in resets["data"]["result"])
        finally:
            scraper.terminate()
            scraper.wait(10)


def test_a_share_of_the_machine_is_chosen_metered_and_told(tmp_path: Path) -> None:
    """Process scope over `fedserver run`: said at the start, stored, and in the closing line."""
    with ServerProcess(tmp_path, 1, rounds=1, emissions__server_scope="process") as server:
        with ClientProcess(server.address, REPORTS):
            closing = server.wait_for(r"run \S+ completed: (.*)", 60)[1]
        assert server.wait() == 0
        assert re.search(r"figure is of: process \(what this process uses of ", server.log)
    assert re.search(r"; process: \S+ % of the machine; ", closing)
    store = open_store(server.store_url)
    (run,) = store.runs()
    rows = list(store.rounds(run.run_id))
    store.close()
    assert run.info.factors.server_scope == "process"
    assert all(row.host_energy_kwh for row in rows)
    assert all((row.metered_share or 0) >= 0.9 for row in rows[1:])


# --- the end, in every way ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_ends_the_run_within_two_seconds_even_with_a_hung_client(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Closed rounds are kept, the run is interrupted, idle clients leave with 0.

    Tests beside this one load the machine: the quickest of three ends counts.
    """
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        if _end_by(folder, number, code) < 2.0:
            return
    pytest.fail("it took longer each time")


def _end_by(folder: Path, number: signal.Signals, code: int) -> float:
    """How long the end took after a signal; all else about it is asserted."""
    idle_after_one = Script(metrics={"emissions": 1e-7})
    hang = Script(fit="hang", fit_rounds=(2,), hang_s=25)
    with ServerProcess(folder, 2, rounds=5) as server:
        with (
            ClientProcess(server.address, idle_after_one) as idle,
            ClientProcess(server.address, hang),
        ):
            server.wait_for(r"round 1/5 completed")
            time.sleep(0.3)  # into the fit of round 2
            began = server.signal(number)
            assert server.wait() == code
            took_s = time.monotonic() - began
            assert idle.wait() == 0
        assert "Traceback" not in server.log
    store = open_store(server.store_url)
    (run,) = store.runs()
    assert run.status == "interrupted"
    assert run.owner is None
    assert [r.status for r in store.rounds(run.run_id)] == ["completed", "completed", "interrupted"]
    store.close()
    assert list((folder / "runs").glob("*/footprint.csv"))
    return took_s


@pytest.mark.slow
def test_a_signal_ends_the_run_within_two_seconds_even_with_a_locked_database(
    tmp_path: Path,
) -> None:
    """With a client hung in ``fit`` as well; what could not be stored comes in with the next start."""
    hang = Script(fit="hang", fit_rounds=(2,), hang_s=25)
    with (
        ServerProcess(tmp_path, 2, rounds=5) as server,
        ClientProcess(server.address, REPORTS),
        ClientProcess(server.address, hang),
    ):
        server.wait_for(r"round 1/5 completed")
        blocker = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        time.sleep(0.3)  # into the fit of round 2
        began = server.signal(signal.SIGTERM)
        assert server.wait() == 143
        assert time.monotonic() - began < 2.0
        blocker.execute("COMMIT")
        blocker.close()
    with ServerProcess(tmp_path, 2) as next_one:
        assert next_one.address
    store = open_store(server.store_url)
    run = store.runs()[-1]
    assert run.status == "interrupted"
    assert [r.status for r in store.rounds(run.run_id)] == ["completed", "completed", "interrupted"]
    store.close()


def test_a_signal_before_any_client_came(tmp_path: Path) -> None:
    """Nobody is there yet: it ends at once, and leaves an interrupted run."""
    with ServerProcess(tmp_path, 2) as server:
        assert server.address
        began = server.signal(signal.SIGTERM)
        assert server.wait() == 143
        assert time.monotonic() - began < 2.0


@pytest.mark.slow
def test_kill_9_leaves_a_run_that_a_later_start_marks_interrupted(tmp_path: Path) -> None:
    """Every closed round is kept, a live run of the same file is not touched."""
    hang = Script(fit="hang", fit_rounds=(3,), hang_s=25, metrics={"emissions": 1e-7})
    with (
        ServerProcess(tmp_path, 2, rounds=5) as killed,
        ClientProcess(killed.address, hang),
        ClientProcess(killed.address, hang),
    ):
        killed.wait_for(r"round 2/5 completed")
        time.sleep(0.2)
        killed.signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    url = killed.store_url
    store = open_store(url)
    (dead,) = store.runs()
    assert dead.status == "running"
    alive_folder = tmp_path / "alive"
    alive_folder.mkdir()
    overrides: dict[str, Any] = {"telemetry__database_url": url}
    with ServerProcess(alive_folder, 2, **overrides) as alive:
        assert alive.address
        assert dead.run_id in alive.log
        assert store.run(dead.run_id).status == "interrupted"
        last_folder = tmp_path / "last"
        last_folder.mkdir()
        with ServerProcess(last_folder, 2, **overrides) as last:
            assert last.address
            statuses = {r.run_id: r.status for r in store.runs()}
    assert sorted(statuses.values()) == ["interrupted", "running", "running"]
    rows = list(store.rounds(dead.run_id))
    assert [r.round for r in rows][:3] == [0, 1, 2]
    assert all(r.closed for r in rows)
    integrity = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert integrity.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    integrity.close()
    store.close()


# --- nothing but its own sockets ---------------------------------------------------------------------

AUDITED = """
import json, os, sys
log = open({log!r}, "a", buffering=1)
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        log.write(json.dumps([event, repr(arguments[1:] if event != "socket.getaddrinfo" else arguments)]) + "\\n")
sys.addaudithook(hook)
sys.argv[0] = "fedserver"
from fedserver.cli import main
main()
"""


def test_no_network_but_the_fl_and_http_sockets(tmp_path: Path) -> None:
    """An audit hook on the server process sees loopback addresses only, codecarbon included."""
    log = tmp_path / "sockets.log"
    script = tmp_path / "audited.py"
    script.write_text(AUDITED.format(log=str(log)))
    with (
        ServerProcess(tmp_path, 2, rounds=1, preload=script) as server,
        ClientProcess(server.address, REPORTS),
        ClientProcess(server.address, REPORTS),
    ):
        assert server.wait() == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(event == "socket.bind" for event, _ in events)
    for event, arguments in events:
        assert "127.0.0.1" in arguments or "::1" in arguments, (event, arguments)


# --- telemetry that breaks while it trains -------------------------------------------------------------


def assert_trained(folder: Path, rounds: int) -> None:
    """The model is that of so many rounds without any fault: each good client adds 1 to a zero."""
    (path,) = (folder / "runs").glob("*/model.npz")
    with np.load(path, allow_pickle=False) as model:
        for layer in model.values():
            np.testing.assert_array_equal(layer, float(rounds))


@pytest.mark.slow
def test_a_database_locked_by_somebody_else_costs_nothing_but_time(tmp_path: Path) -> None:
    """Training goes on while the lock is held; all rounds are there once it is gone."""
    slow = Script(**{**REPORTS.__dict__, "fit": "hang", "hang_s": 0.3})
    with ServerProcess(tmp_path, 2, rounds=6) as server:
        address = server.address
        blocker = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        with ClientProcess(address, slow), ClientProcess(address, slow):
            server.wait_for(r"round 4/6 ")
            blocker.execute("COMMIT")
            blocker.close()
            assert server.wait() == 0
    store = open_store(server.store_url)
    (run,) = store.runs()
    assert [r.round for r in store.rounds(run.run_id)] == [0, 1, 2, 3, 4, 5, 6]
    store.close()
    assert_trained(tmp_path, 6)
    assert server.log.count("WARNING telemetry (store)") == 1, server.log


@pytest.mark.slow
def test_codecarbon_missing_is_one_warning(tmp_path: Path) -> None:
    """Without codecarbon training completes, the server's figure is unknown, the clients' known."""
    script = tmp_path / "without_codecarbon.py"
    script.write_text(
        "import sys\n"
        "sys.modules['codecarbon'] = None\n"
        "sys.argv[0] = 'fedserver'\n"
        "from fedserver.cli import main\n"
        "main()\n"
    )
    with (
        ServerProcess(tmp_path, 2, rounds=2, preload=script) as server,
        ClientProcess(server.address, REPORTS),
        ClientProcess(server.address, REPORTS),
    ):
        assert server.wait() == 0
    warned = [line for line in server.log.splitlines() if "WARNING" in line]
    assert len(warned) == 1
    assert "codecarbon" in warned[0]
    store = open_store(server.store_url)
    (run,) = store.runs()
    assert run.totals.server_emissions_kg is None
    assert run.totals.clients_emissions_kg is not None
    store.close()
    assert_trained(tmp_path, 2)


@pytest.mark.slow
def test_what_the_store_will_not_take_is_kept_and_delivered_by_the_next_start(
    tmp_path: Path,
) -> None:
    """The database stays locked to the end: the rounds wait in a file and come in later, whole."""
    hasty: dict[str, Any] = {"rounds": 2, "telemetry__http__linger_s": 0}
    with ServerProcess(tmp_path, 2, **hasty) as server:
        address = server.address
        blocker = sqlite3.connect(tmp_path / "telemetry.db", isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        with ClientProcess(address, REPORTS), ClientProcess(address, REPORTS):
            assert server.wait(60) == 0
        assert "incomplete" in server.log
        assert_trained(tmp_path, 2)
        blocker.execute("COMMIT")
        blocker.close()
    (kept,) = (tmp_path / "runs").glob("*/undelivered.json")
    with ServerProcess(tmp_path, 2) as next_one:
        assert next_one.address
    assert not kept.exists()
    store = open_store(server.store_url)
    run = store.runs()[-1]
    assert run.status == "completed"
    assert [r.round for r in store.rounds(run.run_id)] == [0, 1, 2]
    store.close()


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv[0] = "fedserver"
import fedserver.running as running
begin = running.run_rounds
def fill(*arguments, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        return begin(*arguments, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
running.run_rounds = fill
from fedserver.cli import main
main()
"""


@pytest.mark.slow
def test_a_full_disk_while_it_trains(tmp_path: Path) -> None:
    """No file can grow during the rounds: training completes, and the rounds come in afterwards."""
    script = tmp_path / "full_disk.py"
    script.write_text(FULL_DISK)
    with (
        ServerProcess(tmp_path, 2, rounds=3, preload=script) as server,
        ClientProcess(server.address, REPORTS),
        ClientProcess(server.address, REPORTS),
    ):
        assert server.wait(60) == 0
    assert server.log.count("WARNING telemetry") == 1, server.log
    assert server.log.count("WARNING no checkpoint") == 1, server.log
    store = open_store(server.store_url)
    (run,) = store.runs()
    assert run.status == "completed"
    assert [r.round for r in store.rounds(run.run_id)] == [0, 1, 2, 3]
    store.close()
    assert_trained(tmp_path, 3)
