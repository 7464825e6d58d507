"""What the tests of pages share: a server with pages over a store, and a reader of what they show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any, Final

import httpx
from prometheus_client import CollectorRegistry

from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.service.app import create_app
from telemetry.service.server import EmbeddedHttp
from telemetry.store import Store
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, START, make_round
from tests.telemetry.views import a_run

BROWSER: Final = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}
HOSTILE: Final = "<script>alert('1')</script>\"><img src=x onerror=alert(1)>&amp;"
VOID: Final = frozenset({"br", "hr", "img", "input", "link", "meta", "path"})


class Shown(HTMLParser):
    """What a browser without scripts shows: the text of each table's cells, the figures in them, and
    every tag. Templates and hidden elements are passed over."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.numbers: dict[str, list[list[list[float]]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[tuple[str, bool]] = []
        self._table = ""
        self._in_cell = False
        self.feed(page)

    @property
    def _hidden(self) -> bool:
        return any(hidden for _, hidden in self._open)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes it."""
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            hidden = tag in ("template", "noscript", "title") or "hidden" in found
            self._open.append((tag, hidden))
        if self._hidden:
            return
        if tag == "table":
            self._table = str(found["id"])
            self.rows[self._table], self.numbers[self._table] = [], []
        elif tag == "tr":
            self.rows[self._table].append([])
            self.numbers[self._table].append([])
        elif tag in ("th", "td"):
            self._in_cell = True
            self.rows[self._table][-1].append("")
            self.numbers[self._table][-1].append([])
        elif tag == "data" and self._in_cell and "value" in found:
            self.numbers[self._table][-1][-1].append(float(str(found["value"])))

    def handle_endtag(self, tag: str) -> None:
        """Notes it."""
        if tag in ("th", "td") and not self._hidden:
            self._in_cell = False
        if tag not in VOID:
            opened, _ = self._open.pop()
            assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        """Notes it."""
        if self._hidden:
            return
        self.text += data
        if self._in_cell:
            self.rows[self._table][-1][-1] += data


def app_of(store: Store, **options: Any) -> tuple[Any, CollectorRegistry]:
    """An FL server's application over that store, at the moment `START`, and its registry."""
    clock = options.pop("clock", lambda: START)
    registry = metrics_registry(EmissionsCollector(store, OWNER, clock=clock))
    return create_app(registry, store=store, owner=OWNER, clock=clock, **options), registry


@contextmanager
def served(store: Store, **options: Any) -> Iterator[tuple[httpx.Client, CollectorRegistry]]:
    """A client without cookies of a server with pages over that store, and the server's registry."""
    app, registry = app_of(store, **options)
    with (
        EmbeddedHttp(app) as server,
        httpx.Client(base_url=server.url, trust_env=False, headers=BROWSER) as client,
    ):
        yield client, registry


def two_rounds() -> InMemoryStore:
    """A run with two rounds."""
    store = InMemoryStore()
    metrics = {"accuracy": 0.8125, "loss": 0.1}
    a_run(
        store,
        make_round(1, clients={"a": 0.25, "b": 0.125}),
        make_round(2, clients={"a": 0.5, "b": "missing"}, evaluate_metrics=metrics),
    )
    return store


def refusals(registry: CollectorRegistry) -> float:
    """How often somebody was refused."""
    return registry.get_sample_value("fl_auth_failures_total") or 0.0
