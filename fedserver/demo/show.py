"""``fedserver demo``: the whole way, once, for somebody who wants to see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from fedserver.assemble import Server
from fedserver.config import load_config
from fedserver.demo.client import KINDS
from fedserver.ending import Outcome
from fedserver.running import run_server
from fedserver.terminal.at_end import print_rounds
from fedserver.terminal.display import LiveDisplay
from telemetry.store import Store

CLIENT_EXIT_S = 10.0


def show(
    folder: Path, *, port: int, linger_s: float, country: str, display: LiveDisplay | None = None
) -> int:
    """Run server and clients, print what there is to see, return the exit code."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    say = console.print if display is None else display.say
    folder.mkdir(parents=True, exist_ok=True)
    loaded = load_config(
        None,
        {},
        {
            "run_name": "digits",
            "seed": 7,
            "rounds": 5,
            "clients.min_fit": len(KINDS),
            "clients.min_evaluate": len(KINDS),
            "clients.min_available": len(KINDS),
            "clients.wait_timeout_s": 120,
            "model.output_dir": str(folder / "runs"),
            "server.address": "127.0.0.1:0",
            "track_emissions": True,
            "emissions.country": country,
            # Its clients are in the same container, if any: one meter for all, which is then split.
            "emissions.server_scope": "machine",
            "telemetry.database_url": f"sqlite:///{folder / 'telemetry.db'}",
            "telemetry.http.port": port,
            "telemetry.http.linger_s": linger_s,
        },
    )
    console.print("A server, three clients and the handwritten digits, on this machine.")
    begin = time.monotonic()
    with ExitStack() as stack:
        clients: list[subprocess.Popen[bytes]] = []
        stack.callback(_end_all, clients)

        def start_clients(server: Server, metrics_url: str) -> None:
            for number, kind in enumerate(KINDS):
                clients.append(_client(server.grid.address, number, kind, country))
            say(
                "clients: one with a codecarbon tracker of its own, one with our helper, one silent"
            )
            say(f"scrape while it runs: curl {metrics_url}")

        def tell(outcome: Outcome, store: Store) -> None:
            print_rounds(console, outcome.run_id, store)
            console.print(outcome.closing, highlight=False, soft_wrap=True)
            console.print(f"took {time.monotonic() - begin:.0f} s; kept:", highlight=False)
            for path in (folder / "telemetry.db", *outcome.artefacts):
                console.print(f"  {_short(path)}", highlight=False, soft_wrap=True)
            store_url = f"sqlite:///{folder / 'telemetry.db'}"
            again = f"{_command()} runs show latest --store {store_url}"
            console.print(f"look again: {again}", highlight=False, soft_wrap=True)

        outcome = run_server(loaded.config, display=display, on_ready=start_clients, on_ended=tell)
    return outcome.exit_code


def _command() -> str:
    """What to type for this program here: ``make`` finds it where no shell looks."""
    name, called = "fedserver", Path(sys.argv[0])
    return name if shutil.which(name) or called.name != name else str(_short(called))


def _short(path: Path) -> Path:
    """Relative to the working directory, where that is shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _client(address: str, partition: int, kind: str, country: str) -> subprocess.Popen[bytes]:
    """One client process; in a session of its own, so that Ctrl-C reaches the server alone."""
    command = [sys.executable, "-m", "fedserver.demo.client", "--server", address]
    command += ["--partition", str(partition), "--kind", kind, "--country", country]
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "CODECARBON_TELEMETRY": "disabled"}
    return subprocess.Popen(
        command, env=os.environ | quiet, start_new_session=True, stderr=subprocess.DEVNULL
    )


def _end_all(clients: list[subprocess.Popen[bytes]]) -> None:
    """Clients leave by themselves when the server says so; none may stay behind."""
    deadline = time.monotonic() + CLIENT_EXIT_S
    for client in clients:
        try:
            client.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            client.kill()
            client.wait()
