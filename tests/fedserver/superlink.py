"""A real SuperLink with SuperNodes on loopback, for tests; nothing is installed or asked for online."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from socket import create_server
from typing import Any

from tests.fedserver.clients import ROOT

PROGRAMS = Path(sys.executable).parent


def free_port() -> int:
    """A port that was free a moment ago."""
    with create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Federation(AbstractContextManager["Federation"]):
    """One SuperLink and its SuperNodes; each SuperNode has a ``--node-config`` of its own."""

    def __init__(
        self, folder: Path, nodes: Sequence[str], environ: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ended: set[object] = set()
        port = free_port()
        home = folder / "flwr"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
            "insecure = true\n"
        )
        self.environ = {
            **os.environ,
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONPATH": str(ROOT),
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            **(environ or {}),
        }
        self._start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1",
            "--port", str(port), "--disable-runtime-dependency-installation",
        )  # fmt: skip
        for number, node in enumerate(nodes):
            self._start(
                f"supernode-{number}", "flower-supernode", "--insecure",
                "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()),
                "--node-config", node,
            )  # fmt: skip

    def _start(self, name: str, program: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(PROGRAMS / program), *arguments],
                cwd=self.folder, env=self.environ, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes.append(process)

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command ``flwr``."""
        return subprocess.run(
            [str(PROGRAMS / "flwr"), *arguments], cwd=self.folder, env=self.environ,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def run(self, app: Path, timeout_s: float = 300.0) -> dict[str, Any]:
        """``flwr run`` to its end; what ``flwr ls`` says of it then."""
        deadline = time.monotonic() + timeout_s
        while "Successfully started run" not in (said := self._submit(app)):
            assert time.monotonic() < deadline, said + self.logs
            time.sleep(0.5)  # the SuperLink may not listen yet
        while True:
            listed = json.loads(self.flwr("ls", "--format", "json").stdout)
            (run,) = [run for run in listed["runs"] if run["run-id"] not in self._ended]
            if run["status"].startswith("finished"):
                self._ended.add(run["run-id"])
                return dict(run)
            assert time.monotonic() < deadline, self.logs
            time.sleep(1)

    def log_of(self, run: Mapping[str, Any]) -> str:
        """What the ServerApp logged, as ``flwr log`` shows it."""
        return self.flwr("log", str(run["run-id"]), "--show").stdout

    def _submit(self, app: Path) -> str:
        done = self.flwr("run", str(app))
        return done.stdout + done.stderr

    @property
    def logs(self) -> str:
        """Everything that any of them wrote."""
        return "\n".join(
            f"== {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.log"))
        )

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
