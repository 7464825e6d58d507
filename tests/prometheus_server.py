"""A real Prometheus for tests and benchmarks: started with a configuration, asked, and gone afterwards."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.tools import require_tool

START_TIMEOUT_S: Final = 30.0
Labels = frozenset[tuple[str, str]]


class Prometheus(AbstractContextManager["Prometheus"]):
    """Scrapes what ``config`` names, on a free port of this machine, with its data in ``folder``."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._folder = folder
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        folder.mkdir(exist_ok=True)
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [
                require_tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)
        try:
            self.until(self._ready, "it answers", START_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise

    @property
    def log(self) -> str:
        """What it complained about."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, **parameters: str | float) -> Any:
        """``data`` of an answer of its HTTP interface; what is wrong is an `AssertionError`."""
        answer = self._http.get(f"/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expression: str, at: float | None = None) -> dict[Labels, float]:
        """An instant query: values by labels, the metric's name among them as ``__name__``."""
        when = {} if at is None else {"time": at}
        result = self.ask("query", query=expression, **when)["result"]
        return {frozenset(row["metric"].items()): float(row["value"][1]) for row in result}

    def until(
        self, condition: Callable[[], Any], what: str = "it holds", timeout_s: float = 60.0
    ) -> Any:
        """Wait until it is true, and return it; with Prometheus's log where that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None, f"Prometheus ended:\n{self.log}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.log}"
            time.sleep(0.1)
        return found

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._http.close()
        self._log.close()

    def _ready(self) -> bool:
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
