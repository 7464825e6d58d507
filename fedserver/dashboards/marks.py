"""One region a run on the overview: when it trained, how it ended, what it emitted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from fedserver.dashboards.differences import differences
from fedserver.dashboards.files import OVERVIEW_UID, Json
from fedserver.dashboards.grafana import Grafana
from fedserver.dashboards.items import Finding
from fedserver.wording import grams
from telemetry.domain import StoredRun

TAG: Final = "fl-run"
MOST: Final = 10_000
"""Annotations that are asked for: Grafana's own default is 100."""


def annotation_of(run: StoredRun) -> Json:
    """What Grafana shall hold of a run; times in ms. A run that goes on is a point at its start."""
    begin = _ms(run.info.started_at)
    total_kg = run.totals.total_emissions_kg
    total = "CO2eq unknown" if total_kg is None else f"{grams(total_kg)} g CO2eq"
    return {
        "dashboardUID": OVERVIEW_UID,
        "time": begin,
        "timeEnd": begin if run.ended_at is None else max(begin, _ms(run.ended_at)),
        "tags": [TAG, _tag(run.run_id)],
        "text": f"{run.info.run_name} ({run.info.strategy}), {run.status}: {total}",
    }


@dataclass(frozen=True, slots=True)
class Mark:
    """The region of one run, and what Grafana had of it when it was asked for all."""

    wanted: Json
    found: tuple[Json, ...]

    @property
    def name(self) -> str:
        """What to call it."""
        return f"annotation {self.wanted['tags'][1]}"

    def look(self, _: Grafana) -> Finding:
        """As it was found; one too many is a difference."""
        if not self.found:
            return Finding(None)
        ours = {key: value for key, value in self.wanted.items() if key != "tags"}
        first = self.found[0]
        differs = list(differences(ours, first))
        differs += differences(sorted(self.wanted["tags"]), sorted(first.get("tags") or []), "tags")
        if len(self.found) > 1:
            differs.append(f"{len(self.found)} of this run")
        return Finding(first, tuple(differs))

    def bring(self, grafana: Grafana, found: Finding) -> None:
        """Create it, or change what is there; what is one too many goes."""
        to_do = f"write the {self.name}, which needs the role Editor"
        if found.there is None:
            grafana.change("POST", "/annotations", self.wanted, to_do)
            return
        body = {key: self.wanted[key] for key in ("time", "timeEnd", "text", "tags")}
        grafana.change("PATCH", f"/annotations/{found.there['id']}", body, to_do)
        for other in self.found[1:]:
            grafana.change("DELETE", f"/annotations/{other['id']}", None, to_do)


def marks_of(grafana: Grafana, runs: Sequence[StoredRun]) -> list[Mark]:
    """Of each run, with what Grafana has of it: one request for all."""
    if not runs:
        return []
    query = {"dashboardUID": OVERVIEW_UID, "tags": TAG, "type": "annotation", "limit": MOST}
    found = grafana.find(f"/annotations?{urlencode(query)}", "read annotations") or []
    by_tag: dict[str, list[Json]] = {}
    for annotation in sorted(found, key=lambda one: int(one["id"])):
        for tag in annotation.get("tags") or []:
            by_tag.setdefault(tag, []).append(annotation)
    return [Mark(wanted, tuple(by_tag.get(wanted["tags"][1], ()))) for wanted in _all(runs)]


def _all(runs: Iterable[StoredRun]) -> Iterable[Json]:
    return map(annotation_of, runs)


def _tag(run_id: str) -> str:
    return f"run:{run_id}"


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
