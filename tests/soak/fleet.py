"""FL servers that train one run after another, go on after a kill, and are told when to stop."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedserver.cli import EXIT_WRONG
from telemetry.store import open_store
from tests.fedserver.clients import ClientThread, Script, wait_until
from tests.fedserver.servers import ServerProcess
from tests.fedserver.services import limit_files, model_of, timed

ROUNDS: Final = 40
PATIENCE_S: Final = 60.0
FULL_BYTES: Final = 4096
"""No file may grow beyond this: a database cannot be written, a log neither."""
RUN_S: Final = 120.0
"""A run that takes longer hangs."""
OPTIONS: Final[dict[str, Any]] = {
    "rounds": ROUNDS,
    "seed": 5,
    "round_timeout_s": 60,
    "clients__wait_timeout_s": 60,
}
FLEET: Final = tuple(
    Script(add=add, examples=examples, metrics=metrics, fit="hang", hang_s=0.3)
    for add, examples, metrics in (
        (0.1, 7, {"emissions": 1e-7, "accuracy": 0.5}),
        (0.7, 13, {}),
    )
)


def reference(folder: Path) -> bytes:
    """The model of a run that nothing disturbs."""
    folder.mkdir()
    with ServerProcess(folder, len(FLEET), **OPTIONS) as server, ExitStack() as stack:
        attach(server, stack)
        assert server.wait(RUN_S) == 0, server.log
    return model_of(folder)


def attach(server: ServerProcess, stack: ExitStack) -> None:
    """Clients in their order: the sums of their floats depend on it."""
    for number, script in enumerate(FLEET, 1):
        stack.push(ClientThread(server.address, script))
        wait_until(
            lambda number=number: (
                server.log.count(" connected") >= number or server.process.poll() is not None
            ),
            PATIENCE_S,
        )


@dataclass
class Trainee:
    """One place where servers run, one after another, over one store."""

    name: str
    folder: Path
    store: Path
    service: str
    model: bytes
    server: ServerProcess | None = None
    completed: int = 0
    resumed: int = 0
    killed: int = 0
    refused: int = 0
    """Starts that a server gave up, in plain words, because its disk was full just then."""
    problems: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _without_disk: subprocess.Popen[str] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self._thread = threading.Thread(target=self._train, daemon=True)

    @property
    def store_url(self) -> str:
        """Where its servers record."""
        return f"sqlite:///{self.store}"

    def start(self) -> None:
        """Begin to train."""
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Begin no new run, and wait for the one that is under way."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problems.append("its server does not end")

    def kill(self) -> str:
        """End the server that runs now, whatever it does; what it was at."""
        server = self.server
        if server is None or server.process.poll() is not None:
            return "there is none just now"
        server.signal(signal.SIGKILL)
        self.killed += 1
        said = [line for line in server.lines if re.search(r" round \d+/\d+ ", line)]
        return f"after {said[-1].split(' round ')[1].split(' ')[0]}" if said else "before round 1"

    def process(self) -> subprocess.Popen[str] | None:
        """The server's, where there is one."""
        return None if self.server is None else self.server.process

    def fill_disk(self, process: subprocess.Popen[str]) -> None:
        """No file of the server may grow from now on."""
        self._without_disk = process
        limit_files(process, FULL_BYTES)

    def metrics_url(self) -> str | None:
        """Where it is scraped; None before it says so."""
        server = self.server
        if server is None or server.process.poll() is not None:
            return None
        found = re.search(r"metrics at (\S+)", server.log)
        return None if found is None else found.group(1)

    # --- the thread ----------------------------------------------------------------------------

    def _train(self) -> None:
        resume: str | None = None
        while not self._stop.is_set() or resume is not None:
            try:
                resume = self._one(resume)
            except Exception as error:  # noqa: BLE001 - told at the end, with the rest
                self.problems.append(f"{type(error).__name__}: {error}"[-2000:])
                resume = None
                time.sleep(1)

    def _one(self, resume: str | None) -> str | None:
        """Play or resume a run; the id of one to go on with, None where there is none."""
        arguments = () if resume is None else ("--resume", resume)
        options: dict[str, Any] = OPTIONS | {
            "telemetry__database_url": self.store_url,
            "telemetry__service_url": self.service,
        }
        with timed(self.folder, len(FLEET), arguments=arguments, **options) as server:
            self.server = server
            with ExitStack() as stack:
                wait_until(_says(server, "clients may connect|^error"), PATIENCE_S)
                if "clients may connect" in server.log:
                    attach(server, stack)
                code = server.wait(RUN_S)
        if code == -signal.SIGKILL:
            found = re.search(r"run (\S+) \(\S+\): clients may connect", server.log)
            run_id = resume if found is None else found.group(1)
            return run_id if run_id is not None and self._may_resume(run_id) else None
        if code == EXIT_WRONG and server.process is self._without_disk and _gave_up(server):
            self.refused += 1
            return resume
        if code != 0:
            self.problems.append(f"a server ended with {code}:\n{server.log[-2000:]}")
            return None
        found = re.search(r"run (\S+) completed", server.log)
        assert found is not None, server.log
        self.completed += 1
        self.resumed += resume is not None
        trained = self.folder / "runs" / found.group(1) / "model.npz"
        if trained.read_bytes() != self.model:
            self.problems.append(f"run {found.group(1)} has another model")
        return None

    def _may_resume(self, run_id: str) -> bool:
        """Whether there is a checkpoint to go on from, and the run has not completed."""
        if not (self.folder / "runs" / run_id / "checkpoint" / "checkpoint.json").exists():
            return False
        with closing(open_store(self.store_url)) as store:
            return store.run(run_id).status != "completed"


def _gave_up(server: ServerProcess) -> bool:
    """Whether it said why it does not start, and nothing like a traceback."""
    return "\nerror: " in f"\n{server.log}" and "Traceback" not in server.log


def _says(server: ServerProcess, pattern: str) -> Callable[[], bool]:
    def said() -> bool:
        ended = server.process.poll() is not None
        return ended or re.search(pattern, server.log, re.MULTILINE) is not None

    return said
