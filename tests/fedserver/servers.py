"""Real trainings for tests: a server in this process or in its own, and clients over sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedserver.assemble import Server
from fedserver.config import load_config
from fedserver.ending import Outcome
from fedserver.running import run_server
from fedserver.terminal.display import LiveDisplay
from fedserver_hooks.meter import Meter, ReplayMeter
from telemetry.domain import RoundRecord, RoundSummary, StoredRun
from telemetry.store import Store, open_store
from tests.fedserver.clients import ROOT, ClientProcess, ClientThread, Script

WATTS = 100.0


@dataclass
class Training:
    """A training that has ended, and what it left."""

    outcome: Outcome
    store: Store
    clients: list[ClientThread | ClientProcess]
    metrics_text: list[str] = field(default_factory=list)

    @property
    def run(self) -> StoredRun:
        """The run as stored."""
        return self.store.run(self.outcome.run_id)

    @property
    def rounds(self) -> list[RoundSummary]:
        """Its closed rounds."""
        return list(self.store.rounds(self.outcome.run_id))

    def round(self, number: int) -> RoundRecord:
        """One round, whole."""
        return self.store.round(self.outcome.run_id, number)

    def model(self) -> bytes:
        """The trained model's file."""
        (path,) = [p for p in self.outcome.artefacts if p.name == "model.npz"]
        return path.read_bytes()


def settings(folder: Path, clients: int, **overrides: Any) -> dict[str, Any]:
    """Options of a small, quick training; ``overrides`` are dotted paths with ``__`` for dots."""
    defaults: dict[str, Any] = {
        "rounds": 2,
        "seed": 1,
        "round_timeout_s": 20,
        "clients.min_fit": clients,
        "clients.min_evaluate": clients,
        "clients.min_available": clients,
        "clients.wait_timeout_s": 20,
        "server.address": "127.0.0.1:0",
        "track_emissions": True,
        "emissions.country": "ESP",
        "emissions.server_scope": "machine",  # wherever the tests run
        "model.output_dir": str(folder / "runs"),
        "telemetry.database_url": f"sqlite:///{folder / 'telemetry.db'}",
        "telemetry.http.port": 0,
        "telemetry.http.linger_s": 0,
    }
    return defaults | {name.replace("__", "."): value for name, value in overrides.items()}


def train(
    folder: Path,
    scripts: Sequence[Script],
    *,
    meter: Meter | None = None,
    display: LiveDisplay | None = None,
    processes: Sequence[int] = (),
    on_ready: Callable[[Server, str], None] | None = None,
    **overrides: Any,
) -> Training:
    """Train in this process, with a client thread a script (a process for those in ``processes``)."""
    folder.mkdir(exist_ok=True)
    config = load_config(None, {}, settings(folder, len(scripts), **overrides)).config
    with ExitStack() as stack:
        clients: list[ClientThread | ClientProcess] = []

        def start(server: Server, metrics_url: str) -> None:
            for number, script in enumerate(scripts):
                address = server.grid.address
                client: ClientThread | ClientProcess = (
                    ClientProcess(address, script)
                    if number in processes
                    else ClientThread(address, script)
                )
                stack.push(client)
                clients.append(client)
                _wait_for_nodes(server, len(clients))
            if on_ready is not None:
                on_ready(server, metrics_url)

        outcome = run_server(
            config, meter=meter or ReplayMeter(WATTS), display=display, on_ready=start
        )
    store = open_store(config.telemetry.database_url)
    return Training(outcome, store, clients)


def _wait_for_nodes(server: Server, count: int) -> None:
    """So that the clients' numbers are the order of their scripts."""
    server.grid.require(count, 20.0)
    server.grid.get_node_ids()


class ServerProcess(AbstractContextManager["ServerProcess"]):
    """``fedserver run`` as a process; its log is read along."""

    def __init__(
        self,
        folder: Path,
        clients: int,
        *,
        environ: Mapping[str, str] | None = None,
        preload: Path | None = None,
        arguments: Sequence[str] = (),
        **overrides: Any,
    ) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._news = threading.Condition()
        path = folder / "server.yaml"
        path.write_text(yaml.safe_dump(nested(settings(folder, clients, **overrides))))
        command = [sys.executable, *([str(preload)] if preload else ["-m", "fedserver"])]
        self.process = subprocess.Popen(
            [*command, "run", "-c", str(path), *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | dict(environ or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """Wait for a line of the log that matches."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for line in self.lines:
                    if found := re.search(pattern, line):
                        return found
                if self.process.poll() is not None and not self._reader.is_alive():
                    raise AssertionError(f"the server ended without {pattern!r}:\n{self.log}")
                left = deadline - time.monotonic()
                assert left > 0, f"no {pattern!r} in\n{self.log}"
                self._news.wait(min(left, 0.2))

    @property
    def log(self) -> str:
        """What it logged so far."""
        return "\n".join(self.lines)

    @property
    def address(self) -> str:
        """Where clients connect; waits until they may."""
        return self.wait_for(r"clients may connect to (\S+);").group(1)

    @property
    def metrics_url(self) -> str:
        """Where Prometheus scrapes."""
        return self.wait_for(r"metrics at (\S+)").group(1)

    @property
    def store_url(self) -> str:
        """Its database."""
        return f"sqlite:///{self.folder / 'telemetry.db'}"

    def signal(self, number: signal.Signals) -> float:
        """Send a signal; returns the time, for `wait`."""
        self.process.send_signal(number)
        return time.monotonic()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Its exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join(5)
        return code

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(5)
        assert self.process.stderr is not None
        self.process.stderr.close()


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted paths as the mapping of a YAML file."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *sections, key = path.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    return tree
