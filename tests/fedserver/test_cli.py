"""The command line: what works, and what a user's mistake looks like."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.store import open_store
from tests.fedserver.clients import ROOT


def fedserver(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "fedserver", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit 2, one message with these words, nothing else."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 4
    for word in words:
        assert word in done.stderr, done.stderr


def test_init_writes_a_file_that_check_config_accepts(tmp_path: Path) -> None:
    """The commented file is valid, every option has its source, and it is not overwritten."""
    assert fedserver("init", cwd=tmp_path).returncode == 0
    checked = fedserver("check-config", cwd=tmp_path, FEDSERVER_ROUNDS="7")
    assert checked.returncode == 0, checked.stderr
    (rounds,) = [line for line in checked.stdout.splitlines() if line.startswith("rounds ")]
    assert rounds.split() == ["rounds", "7", "FEDSERVER_ROUNDS"]
    assert "server.yaml:" in checked.stdout
    refused(fedserver("init", cwd=tmp_path), "server.yaml exists", "--force")


def test_strategies_are_listed(tmp_path: Path) -> None:
    """All of them, one of them, and as the documentation has them; no other name."""
    everything = fedserver("strategies", cwd=tmp_path)
    assert everything.returncode == 0, everything.stderr
    for words in ("FedAvgOpt\n", "  proximal_mu  default 1; number, 0 or more", "arxiv.org"):
        assert words in everything.stdout
    one = fedserver("strategies", "Krum", cwd=tmp_path).stdout
    assert one.startswith("Krum\n")
    assert one in everything.stdout
    page = fedserver("strategies", "--markdown", cwd=tmp_path).stdout
    assert page.startswith("### FedAvg\n")
    refused(
        fedserver("strategies", "Krun", cwd=tmp_path), '"Krun" is no strategy', "FedAvg, FedProx"
    )


WRONG = {
    "unknown key": ("roundz: 5", ("roundz", "rounds")),
    "wrong type": ("rounds: five", ("rounds", "five")),
    "truth value as number": ("rounds: true", ("rounds",)),
    "unknown strategy": ("strategy: {name: FedAwg}", ("strategy", "FedAwg", "FedAvg")),
    "another strategy's option": ("strategy: {name: FedAvg, q: 1}", ("strategy.q", "QFedAvg")),
    "too small a fleet": ("strategy: {name: Bulyan}", ("clients.min_fit", "3 clients")),
    "two-letter country": ("emissions: {country: ES}", ("emissions.country", "ES", "ESP")),
    "no country": ("emissions: {country: XXX}", ("emissions.country", "XXX")),
    "open address": ("server: {address: '0.0.0.0:5000'}", ("server.address", "allow_anonymous")),
    "open metrics": ("telemetry: {http: {host: 0.0.0.0}}", ("telemetry.http", "read_token_file")),
    "no series at all": ("telemetry: {max_series: 0}", ("telemetry.max_series", "0")),
    "a budget that nobody watches": ("emissions: {budget_kg: 1}", ("budget_kg", "track_emissions")),
    "broken file": ("rounds: [", ("server.yaml",)),
}


@pytest.mark.parametrize(
    ("command", "case"),
    [*(("check-config", case) for case in WRONG), ("run", "unknown key"), ("run", "no country")],
)
def test_a_wrong_file_is_one_message(tmp_path: Path, command: str, case: str) -> None:
    """The message names the key, the value and what would be right; nothing starts."""
    text, words = WRONG[case]
    (tmp_path / "server.yaml").write_text(text + "\n")
    refused(fedserver(command, "-c", "server.yaml", cwd=tmp_path), *words)
    assert not (tmp_path / "telemetry.db").exists()


def test_a_misspelt_variable_is_one_message(tmp_path: Path) -> None:
    """FEDSERVER_TRACK_EMISIONS is not ignored: the right spelling is named."""
    done = fedserver("run", cwd=tmp_path, FEDSERVER_TRACK_EMISIONS="true")
    refused(done, "FEDSERVER_TRACK_EMISIONS", "FEDSERVER_TRACK_EMISSIONS")


def test_variables_of_a_kubernetes_service_are_said_and_do_not_stop_the_start(
    tmp_path: Path,
) -> None:
    """What stops it is another variable; the line is there although it stands before that."""
    links = {"FEDSERVER_SERVICE_HOST": "10.96.0.12", "FEDSERVER_PORT": "tcp://10.96.0.12:5000"}
    done = fedserver("run", cwd=tmp_path, FEDSERVER_ROUNDS="0", **links)
    assert done.returncode == 2
    said, error = done.stderr.splitlines()
    assert said.endswith("a Kubernetes service: FEDSERVER_PORT, FEDSERVER_SERVICE_HOST")
    assert error.startswith("error: rounds: 0 must be")


def test_a_port_in_use_is_one_message(tmp_path: Path) -> None:
    """Both ports are checked before anything is recorded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        common = ("--set", "track_emissions=false")
        fl = fedserver("run", "--set", f"server.address=127.0.0.1:{port}", *common, cwd=tmp_path)
        refused(fl, "server.address", str(port), "in use")
        http = fedserver(
            "run", "--set", "server.address=127.0.0.1:0",
            "--set", f"telemetry.http.port={port}", *common, cwd=tmp_path,
        )  # fmt: skip
        refused(http, "telemetry.http.port", str(port), "in use")


def test_an_unusable_database_is_one_message(tmp_path: Path) -> None:
    """A folder that does not exist, and a file that is no database."""
    nowhere = fedserver(
        "run", "--set", "telemetry.database_url=sqlite:///nowhere/t.db", cwd=tmp_path
    )
    refused(nowhere, "telemetry.database_url", "nowhere")
    (tmp_path / "t.db").write_text("this is a text file, and long enough to be looked at " * 20)
    foreign = fedserver("run", "--set", "telemetry.database_url=sqlite:///t.db", cwd=tmp_path)
    refused(foreign, "telemetry.database_url", "t.db")


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    """No file can grow: SQLite cannot make the one that its readers share."""
    url = f"sqlite:///{tmp_path / 't.db'}"
    open_store(url).close()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # inherited
    try:
        full = fedserver("run", "--set", f"telemetry.database_url={url}", cwd=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(full, "telemetry.database_url", "the disk reports an error (SQLITE_IOERR_SHMSIZE)")


def test_a_missing_or_broken_model_is_one_message(tmp_path: Path) -> None:
    """The file that training should start from is checked before the port opens."""
    (tmp_path / "m.npz").write_text("no model")
    refused(
        fedserver("run", "--set", "model.initial=m.npz", cwd=tmp_path), "model.initial", "m.npz"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("runs", "list"), ("telemetry.db",)),
        (("runs", "show", "latest"), ("telemetry.db",)),
        (("runs", "export", "x", "--format", "xml"), ("xml", "csv", "json")),
        (("run", "--set", "rounds"), ("path=value",)),
        (("run", "-c", "nothing.yaml"), ("nothing.yaml",)),
    ],
)
def test_wrong_use_is_one_message(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Exit 2 and what to do instead."""
    refused(fedserver(*arguments, cwd=tmp_path), *words)


@pytest.mark.slow
def test_the_demo_shows_what_it_promises(tmp_path: Path) -> None:
    """Five rounds, an accuracy that rises, a table, a closing line, three files; in a minute."""
    import re
    import time

    begin = time.monotonic()
    done = fedserver(
        "demo", "--folder", "demo", "--metrics-port", "0", "--linger", "0", cwd=tmp_path
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - begin < 60
    accuracies = [
        float(a) for a in re.findall(r"round \d/5 completed.* accuracy ([\d.]+),", done.stdout)
    ]
    assert len(accuracies) == 5
    assert accuracies[-1] >= 0.85
    assert accuracies[-1] >= accuracies[0] + 0.10
    assert "coverage 2/3" in done.stdout
    assert re.search(
        r"total [\d.]+ g = server [\d.]+ g \+ clients [\d.]+ g \(this machine measured once.*"
        r"2 of 3 clients reported.*174\.1 gCO2eq/kWh, Spain\)",
        done.stdout,
    )
    (folder,) = (tmp_path / "demo" / "runs").iterdir()
    assert {p.name for p in folder.iterdir()} == {"footprint.csv", "run.json", "model.npz"}
    assert (tmp_path / "demo" / "telemetry.db").exists()
