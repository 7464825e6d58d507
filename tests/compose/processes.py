"""Runs docker-compose.yml without an engine: each service a process, in the order of its dependencies.

What is done of the file is noted; `Stack.left` says what was not.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg

from tests.compose.files import compose, made_env, stages
from tests.compose.translation import Machine
from tests.postgres import PostgresServer, unprivileged_postgres
from tests.tools import require_tool

WAIT_S: Final = 90.0
PASSED_ON: Final = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "TZ")
"""Of this machine's own environment; processes get what the file and the image say, and this."""
Item = tuple[str, str, str]
"""Service, kind (command, healthcheck, port, mount, variable), and which."""


@dataclass
class ImagePostgres(PostgresServer):
    """PostgreSQL as its image starts it: see `tests.compose.translation`."""

    environment: dict[str, str] = field(default_factory=dict)
    cluster: Path = Path()

    @property
    def data(self) -> Path:
        """The volume."""
        return self.cluster

    def initialise(self) -> None:
        """The cluster, its user with a password, and the rule for TCP."""
        password = self.folder / "password"
        password.write_text(self.environment["POSTGRES_PASSWORD"])
        unprivileged_postgres(password)
        self._run(
            "initdb", "-D", str(self.data), "-U", self.environment["POSTGRES_USER"],
            "--pwfile", str(password), "--no-sync", "--no-instructions",
            *shlex.split(self.environment["POSTGRES_INITDB_ARGS"]),
        )  # fmt: skip
        password.unlink()
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("\nhost all all all scram-sha-256\n")

    def make_database(self) -> None:
        """The database that the environment names."""
        user = self.environment["POSTGRES_USER"]
        with psycopg.connect(self.url(user=user), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {self.environment['POSTGRES_DB']}")

    def surroundings(self) -> dict[str, str]:
        """Where its programs and libraries are."""
        return {"PATH": str(self.programs), **self._libraries()}


class Stack(ExitStack):
    """The services of the file as processes; all of them are gone afterwards."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        super().__init__()
        self.secrets = made_env(folder / "env")
        self.document: dict[str, Any] = compose(self.secrets | settings)
        self.services: dict[str, dict[str, Any]] = self.document["services"]
        self.folder = folder
        self.machine = Machine(self.document, folder)
        self.image = stages()[-1]
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.exits: dict[str, int] = {}
        self.done: set[Item] = set()
        self.strangers: list[str] = []
        """What clients without a good token said."""
        self.postgres: ImagePostgres | None = None
        self.programs = self._programs()

    # --- what there is to do --------------------------------------------------------------------

    def everything(self) -> set[Item]:
        """All commands, checks, ports, mounts and variables of the file."""
        items: set[Item] = set()
        for name, service in self.services.items():
            items |= {(name, kind, "") for kind in ("command", "healthcheck") if kind in service}
            items |= {(name, "port", port) for port in service.get("ports", ())}
            items |= {(name, "mount", mount.inside) for mount in self.machine.mounts[name]}
            items |= {(name, "variable", variable) for variable in service.get("environment", ())}
        return items

    def note(self, service: str, kind: str, what: str = "") -> None:
        """That was done."""
        assert (service, kind, what) in self.everything()
        self.done.add((service, kind, what))

    @property
    def left(self) -> set[Item]:
        """What of the file was not done."""
        return self.everything() - self.done

    # --- starting -------------------------------------------------------------------------------

    def up(self, name: str) -> None:
        """Start a service, those before it as the file asks for, and wait as it says."""
        if name in self.running or name in self.exits:
            return
        for other, how in self.services[name].get("depends_on", {}).items():
            self.up(other)
            if how["condition"] == "service_completed_successfully":
                assert self.exit_of(other) == 0, self.log(other)
            else:
                self.wait_until_healthy(other)
        if name == "postgres":
            if self.postgres is None:
                self._start_postgres()
            return
        self.machine.translate_mounted(name)
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(name), env=self.environment(name), cwd=self._directory(name),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.callback(self._end, self.running[name])
        self.note(name, "command")
        for variable in self.services[name].get("environment", ()):
            self.note(name, "variable", variable)

    def command(self, name: str) -> list[str]:
        """What the container would run."""
        service = self.services[name]
        entrypoint = service.get("entrypoint") or json.loads(self.image.of("ENTRYPOINT")[0])
        words = [self.machine.text(name, str(word)) for word in (*entrypoint, *service["command"])]
        return self._here(words)

    def environment(self, name: str, *, renamed: bool = True) -> dict[str, str]:
        """What the container's processes would find, with this machine's programs.

        ``renamed``: with the loopback addresses of this machine.
        """
        put = self.machine.text if renamed else self.machine.paths
        ours = self.services[name]["image"].startswith("fedserver-telemetry")
        found = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        if ours:
            own = {key: text for key, text in self.image.environment.items() if key != "PATH"}
            found |= {key: put(name, text) for key, text in own.items()}
        given = self.services[name].get("environment", {})
        found |= {key: put(name, str(text)) for key, text in given.items()}
        return found | {"PATH": self.programs}

    def wait_until_healthy(self, name: str) -> None:
        """Ask the service's own health check until it says yes."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD", f"{name}: {kind}"
        words = [self.machine.text(name, word) for word in words]
        deadline = time.monotonic() + WAIT_S
        while not self._is_healthy(name, words):
            process = self.running.get(name)
            assert process is None or process.poll() is None, f"{name} is gone: {self.log(name)}"
            assert time.monotonic() < deadline, f"{name} never got healthy: {self.log(name)}"
            time.sleep(0.2)
        self.note(name, "healthcheck")

    def exit_of(self, name: str) -> int:
        """Wait until a service has ended; its exit code."""
        if name not in self.exits:
            self.exits[name] = self.running[name].wait(WAIT_S)
        return self.exits[name]

    def stop(self, name: str) -> int:
        """As `docker compose stop` does; the exit code."""
        self.running[name].send_signal(signal.SIGTERM)
        return self.exit_of(name)

    def again(self, name: str) -> int:
        """Run a service once more, as a second `up` does with those that have ended."""
        self.exits.pop(name, None)
        self.running.pop(name, None)
        self.up(name)
        return self.exit_of(name)

    def log(self, name: str) -> str:
        """What a service has printed."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    # --- looking --------------------------------------------------------------------------------

    def url(self, name: str, port: int) -> str:
        """Where a service answers HTTP."""
        return f"http://{self.machine.addresses[name]}:{port}"

    def reach_ports(self, name: str) -> None:
        """Connect to what the file publishes of a service."""
        for port in self.services[name].get("ports", ()):
            inside = int(port.rpartition(":")[2])
            socket.create_connection((self.machine.addresses[name], inside), timeout=10).close()
            self.note(name, "port", port)

    def look_at_mounts(self, name: str) -> None:
        """What a service was given to keep things in holds something; ``/tmp`` need not."""
        for mount in self.machine.mounts[name]:
            if mount.kind != "bind":
                assert any(mount.here.iterdir()) or mount.inside == "/tmp", (name, mount)
                self.note(name, "mount", mount.inside)

    # --- parts ----------------------------------------------------------------------------------

    def _programs(self) -> str:
        """Where programs are found, in place of the images' PATH."""
        folders = [Path(sys.executable).parent, Path(require_tool("prometheus")).parent]
        return ":".join([*map(str, folders), "/usr/bin", "/bin"])

    def _here(self, words: list[str]) -> list[str]:
        prometheus = require_tool("prometheus")
        words = [word.replace("/bin/prometheus", prometheus) for word in words]
        program = shutil.which(words[0], path=self.programs)
        assert program is not None, f"{words[0]}: not found"
        return [program, *words[1:]]

    def _directory(self, name: str) -> Path:
        """The image's working directory, where the service mounts it."""
        for mount in self.machine.mounts[name]:
            if mount.inside in self.image.of("WORKDIR"):
                return mount.here
        return self.machine.mounts[name][0].here

    def _start_postgres(self) -> None:
        name = "postgres"
        mounts = {mount.inside: mount.here for mount in self.machine.mounts[name]}
        own = mounts["/var/run/postgresql"]
        cluster = mounts["/var/lib/postgresql/data"]
        for folder in (own, cluster):
            unprivileged_postgres(folder)
        address = self.machine.addresses[name]
        self.postgres = server = ImagePostgres(
            PostgresServer.installed(), own, (f"listen_addresses={address}", "port=5432", "fsync=off"),
            environment=self.services[name]["environment"], cluster=cluster,
        )  # fmt: skip
        server.initialise()
        self.callback(server.stop, "immediate")
        server.start()
        server.make_database()
        for variable in self.services[name]["environment"]:
            self.note(name, "variable", variable)

    def _is_healthy(self, name: str, words: list[str]) -> bool:
        environment = {"PATH": self.programs}
        if words[0] == "wget":
            try:
                return httpx.get(words[-1], timeout=5, trust_env=False).is_success
            except httpx.TransportError:
                return False
        if words[0] == "pg_isready":
            assert self.postgres is not None
            environment = self.postgres.surroundings()
        program = shutil.which(words[0], path=environment["PATH"])
        assert program is not None, f"{words[0]}: not found"
        done = subprocess.run(
            [program, *words[1:]], env=environment, capture_output=True, timeout=30, check=False
        )
        return done.returncode == 0

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
            process.wait(10)
