"""Walks through what a Grafana shall hold: looks at each piece, and brings it there if asked to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fedserver.dashboards.files import (
    POSTGRES_TYPES,
    PROMETHEUS_TYPES,
    Chosen,
    Json,
    bound,
)
from fedserver.dashboards.grafana import Grafana
from fedserver.dashboards.items import (
    POSTGRES_UID,
    PROMETHEUS_UID,
    Dashboard,
    DataSource,
    Folder,
    Item,
)
from fedserver.errors import GrafanaRefused

What = Literal["unchanged", "created", "updated", "missing", "different", "failed", "not tried"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one piece."""

    name: str
    what: What
    why: tuple[str, ...] = ()
    """How it differed, or what Grafana said."""

    @property
    def well(self) -> bool:
        """Whether Grafana has it now."""
        return self.what in ("unchanged", "created", "updated")


def walk(grafana: Grafana, items: Iterable[Item], *, apply: bool) -> Iterator[Outcome]:
    """Each in its turn; what Grafana refuses of one does not stop the others. Raises `GrafanaAway`."""
    for item in items:
        yield _one(grafana, item, apply=apply)


def walk_boards(
    grafana: Grafana, sources: Sequence[DataSource], files: Sequence[Json], *, apply: bool
) -> Iterator[Outcome]:
    """Data sources, the folder, and the dashboards in it. Raises `GrafanaAway`."""
    named = {}
    for source in sources:
        outcome = _one(grafana, source, apply=apply)
        if outcome.what != "failed":
            named[source.uid] = str(source.wanted["name"])
        yield outcome
    folder = _one(grafana, Folder(), apply=apply)
    yield folder
    if folder.what == "failed":
        for file in files:
            why = "there is no folder to put it into"
            yield Outcome(Dashboard(file).name, "not tried", (why,))
        return
    chosen = _chosen(grafana, named)
    yield from walk(grafana, [Dashboard(bound(file, chosen)) for file in files], apply=apply)


def _one(grafana: Grafana, item: Item, *, apply: bool) -> Outcome:
    try:
        found = item.look(grafana)
        if found.same:
            return Outcome(item.name, "unchanged")
        if not apply:
            what: What = "missing" if found.there is None else "different"
            return Outcome(item.name, what, found.differs)
        item.bring(grafana, found)
    except GrafanaRefused as refused:
        return Outcome(item.name, "failed", (str(refused),))
    return Outcome(item.name, "created" if found.there is None else "updated", found.differs)


def _chosen(grafana: Grafana, named: dict[str, str]) -> dict[frozenset[str], Chosen]:
    """What the dashboards' variables shall point at: what was named now or by an earlier push."""
    chosen = {}
    for types, uid in ((PROMETHEUS_TYPES, PROMETHEUS_UID), (POSTGRES_TYPES, POSTGRES_UID)):
        name = named.get(uid) or _name_there(grafana, uid)
        if name is not None:
            chosen[types] = Chosen(uid, name)
    return chosen


def _name_there(grafana: Grafana, uid: str) -> str | None:
    """Its name; None where there is none, or none that this token may see."""
    try:
        there = grafana.find(f"/datasources/uid/{uid}", f"look for the data source {uid}")
    except GrafanaRefused:
        return None
    return None if there is None else str(there.get("name", uid))
