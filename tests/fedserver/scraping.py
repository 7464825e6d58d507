"""A Prometheus of three lines: scrapes again and again, and remembers whether a counter ever fell."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import httpx
from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]


class Scraper(AbstractContextManager["Scraper"]):
    """Scrapes while the ``with`` block lasts.

    ``sources`` says by name what gives the address of a ``/metrics`` (None: there is none just now).
    Several processes over one database have one name, for they are one source.
    """

    def __init__(
        self, sources: Mapping[str, list[Callable[[], str | None]]], every_s: float = 0.3
    ) -> None:
        self._sources = sources
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._last: dict[tuple[str, Series], float] = {}
        self.fallen: list[str] = []
        """Counters that were lower than before, in words."""
        self.runs: dict[str, set[str]] = defaultdict(set)
        """Run → the sources that showed series of it."""
        self._doubled: set[str] = set()
        self.at_once: set[str] = set()
        """Runs that several sources showed in two looks running: no handing over takes as long."""
        self.scrapes = 0
        self.failed = 0

    def look(self) -> None:
        """Scrape each once; an address that does not answer is one that is down."""
        shown: dict[str, set[str]] = defaultdict(set)
        for name, addresses in self._sources.items():
            for address in addresses:
                url = address()
                if url is None:
                    continue
                try:
                    answer = httpx.get(url, timeout=10, trust_env=False)
                except httpx.HTTPError:
                    self.failed += 1
                    continue
                if answer.status_code == 200:
                    self.scrapes += 1
                    for run in self._take(name, answer.text):
                        shown[run].add(name)
                else:
                    self.failed += 1
        doubled = {run for run, names in shown.items() if len(names) > 1}
        self.at_once |= doubled & self._doubled
        self._doubled = doubled

    def _take(self, source: str, text: str) -> set[str]:
        """The runs that a source shows now."""
        shown: set[str] = set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if "run_id" not in sample.labels:
                    continue
                shown.add(sample.labels["run_id"])
                if family.type not in ("counter", "histogram"):
                    continue
                key = source, (sample.name, tuple(sorted(sample.labels.items())))
                before = self._last.get(key)
                if before is not None and sample.value < before:
                    self.fallen.append(f"{source}: {key[1]} from {before} to {sample.value}")
                self._last[key] = sample.value
        for run in shown:
            self.runs[run].add(source)
        return shown

    def _run(self) -> None:
        while not self._ended.is_set():
            self.look()
            time.sleep(self._every_s)

    @property
    def counters(self) -> int:
        """How many series of counters were seen."""
        return len(self._last)

    def check(self, *, handed_over: bool = False) -> None:
        """No counter ever fell, and each run was shown by one source alone.

        Runs that were ``handed_over`` had one at a time.
        """
        assert not self.fallen, self.fallen[:5]
        assert not self.at_once, self.at_once
        if handed_over:
            return
        twice = {run: names for run, names in self.runs.items() if len(names) > 1}
        assert not twice, twice

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
