"""The telemetry service as a process, and what a test does with it: kill, start again, fill its disk."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

from telemetry.store import open_store
from tests.fedserver.clients import ROOT, ClientThread, Script, wait_until
from tests.fedserver.hook_times import VARIABLE
from tests.fedserver.servers import ServerProcess
from tests.service_double import assert_same_run

ENVIRON = {**os.environ, "PYTHONPATH": str(ROOT)}
HOOK_TIMES = ROOT / "tests" / "fedserver" / "hook_times.py"


class ServiceProcess(AbstractContextManager["ServiceProcess"]):
    """``fedserver telemetry serve`` as a process that may be killed and started again.

    Over SQLite in ``folder``, or whatever ``store_url`` says. With ``double`` it is the service by
    hand (`tests.service_double`) with these options.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        store_url: str | None = None,
        double: Sequence[str] = (),
        name: str = "service",
    ) -> None:
        self.store_url = store_url or f"sqlite:///{folder / f'{name}.db'}"
        self.log = folder / f"{name}.log"
        self._options = options
        self._double = double
        self.url = ""
        self.start()

    def start(self) -> None:
        """Where it was before, if it was."""
        port = self.url.rpartition(":")[2] or "0"
        own = ("-m", "fedserver", "telemetry", "serve", "--store", self.store_url, "--port", port)
        double = ("-m", "tests.service_double", self.store_url, port, *self._double)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *(double if self._double else (*own, *self._options))],
                cwd=ROOT,
                env=ENVIRON,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+", self.process.stdout.readline())
        if found is None:
            self.kill()
            raise AssertionError(f"the service did not start:\n{self.log.read_text()[-3000:]}")
        self.url = found.group(0)

    def kill(self) -> None:
        """At once, whatever it does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """In order; its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(40)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


def limit_files(process: subprocess.Popen[str], size_bytes: int = resource.RLIM_INFINITY) -> None:
    """Let no file of a process grow beyond this from now on: its disk is full. Default: it is not."""
    limit = size_bytes, resource.RLIM_INFINITY
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)


def timed(
    folder: Path,
    clients: int,
    *,
    arguments: Sequence[str] = (),
    preload: Path = HOOK_TIMES,
    **overrides: Any,
) -> Any:
    """A server process whose calls into the hook are measured, see `hook_times`.

    A ``preload`` of the test's own ends with `hook_times.main`.
    """
    number = len(list(folder.glob("hook-times*")))
    environ = {VARIABLE: str(folder / f"hook-times-{number}")}
    return ServerProcess(
        folder, clients, preload=preload, environ=environ, arguments=arguments, **overrides
    )


def flush(store: Path | str, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``fedserver telemetry flush`` over a server's store: its URL, or its folder."""
    url = f"sqlite:///{store / 'telemetry.db'}" if isinstance(store, Path) else store
    command = ["telemetry", "flush", "--store", url, "--service-url", service, *arguments]
    return subprocess.run(
        [sys.executable, "-m", "fedserver", *command],
        cwd=store if isinstance(store, Path) else ROOT,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def flushed(folder: Path, service: str) -> None:
    """What is left in a server's store is delivered, all of it."""
    done = flush(folder, service, "--timeout", "100")
    assert done.returncode == 0, done.stderr


def play(server: ServerProcess, stack: ExitStack, fleet: tuple[Script, ...]) -> None:
    """Clients in the order of their scripts."""
    for number, script in enumerate(fleet, 1):
        stack.push(ClientThread(server.address, script))
        wait_until(lambda number=number: server.log.count(" connected") >= number)


def model_of(folder: Path) -> bytes:
    """The model that the one run of a server's folder trained."""
    (path,) = (folder / "runs").glob("*/model.npz")
    return path.read_bytes()


def check_same(service: str, *folders: Path) -> None:
    """The service's store holds what each server's store recorded, row by row, and nothing else."""
    with ExitStack() as stack:
        theirs = stack.enter_context(closing(open_store(service)))
        found: list[str] = []
        for folder in folders:
            ours = open_store(f"sqlite:///{folder / 'telemetry.db'}")
            stack.enter_context(closing(ours))
            run_ids = [run.run_id for run in ours.runs()]
            assert run_ids, f"{folder.name} recorded nothing"
            found += run_ids
            for run_id in run_ids:
                assert_same_run(theirs, ours, run_id)
        assert sorted(found) == sorted(run.run_id for run in theirs.runs())
