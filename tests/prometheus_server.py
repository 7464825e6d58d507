"""A real Prometheus for tests and benchmarks: started with a configuration, asked, and gone afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.tools import require_tool

START_TIMEOUT_S: Final = 30.0
LOOK_S: Final = 0.1
Labels = frozenset[tuple[str, str]]


class Prometheus(AbstractContextManager["Prometheus"]):
    """Scrapes what ``config`` names, with its data in ``folder``; answers on a free port, at ``url``."""

    def __init__(self, config: Path, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._log_path = folder / "log"
        self._log = self._log_path.open("wb")
        self.process = subprocess.Popen(
            [
                require_tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"]},
        )
        self._http = httpx.Client(trust_env=False, timeout=30)
        self.url = ""
        try:
            self.url = self.until(self._address, "it listens", START_TIMEOUT_S)
            self.until(self._ready, "it is ready", START_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise

    @property
    def log(self) -> str:
        """What it said."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str, **parameters: str | float) -> Any:
        """``data`` of an answer of its HTTP interface; what is wrong is an `AssertionError`."""
        answer = self._http.get(f"{self.url}/api/v1/{path}", params=parameters)
        assert answer.status_code == 200, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    def query(self, expression: str) -> dict[Labels, float]:
        """An instant query: values by labels, the metric's name among them as ``__name__``."""
        result = self.ask("query", query=expression)["result"]
        return {frozenset(row["metric"].items()): float(row["value"][1]) for row in result}

    def reload(self) -> None:
        """Read the configuration again."""
        before = self.log.count("Completed loading of configuration file")
        self.process.send_signal(signal.SIGHUP)
        self.until(
            lambda: self.log.count("Completed loading of configuration file") > before, "it reloads"
        )

    def until(
        self, condition: Callable[[], Any], what: str = "it holds", timeout_s: float = 60.0
    ) -> Any:
        """Wait until it is true, and return it; with Prometheus's log where that takes too long."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition()):
            assert self.process.poll() is None, f"Prometheus ended:\n{self.log}"
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}\n{self.log}"
            time.sleep(LOOK_S)
        return found

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._http.close()
        self._log.close()

    def _address(self) -> str | None:
        found = re.search(r'msg="Listening on" address=(\S+)', self.log)
        return None if found is None else f"http://{found[1]}"

    def _ready(self) -> bool:
        return self._http.get(f"{self.url}/-/ready").status_code == 200
