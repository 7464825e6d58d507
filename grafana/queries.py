"""The queries of a dashboard, and what Grafana makes of its macros and variables before it asks.

For tests and benchmarks that run a dashboard's queries against a real Prometheus or PostgreSQL
without a Grafana server. Only what our dashboards use is known here; anything else is a `KeyError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

DASHBOARDS: Final = Path(__file__).parent / "dashboards"
SCRAPE_INTERVAL_S: Final = 5.0
"""As in prometheus/prometheus.yml, and in the data source's ``timeInterval``."""

Language = Literal["promql", "sql"]
Place = Literal["panel", "variable", "annotation"]
Variables = Mapping[str, str | Sequence[str]]
"""Values by name; several where a variable takes several."""
Json = Mapping[str, Any]

_LANGUAGES: Final[Mapping[str, Language]] = {
    "prometheus": "promql",
    "grafana-postgresql-datasource": "sql",
}
_REFERENCE: Final = re.compile(r"\$(?:\{(\w+)(?::(\w+))?\}|([A-Za-z_]\w*))")
_SPECIAL: Final = re.compile(r"[\\$^*{}\[\]'+?.()|]")
"""Escaped in several values, which become a regular expression within a string of PromQL."""
_ASKED: Final = re.compile(r"label_values\((?P<selector>.+),\s*\w+\)|query_result\((?P<query>.+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One query of a dashboard."""

    dashboard: str
    """Its uid."""
    place: Place
    title: str
    """Of the panel or the annotation; the name of the variable."""
    ref: str
    language: Language
    text: str
    """As it stands in the dashboard. Of a variable's ``label_values(…)`` the selector alone, of
    ``query_result(…)`` the query."""
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time range that is looked at, and how fine."""

    start_s: float
    """Seconds since 1970."""
    end_s: float
    step_s: float = 15.0

    @property
    def range_s(self) -> int:
        """Its length in whole seconds, as ``$__range`` has it."""
        return round(self.end_s - self.start_s)

    @property
    def rate_interval_s(self) -> int:
        """``$__rate_interval``: at least four scrapes."""
        return round(max(self.step_s + SCRAPE_INTERVAL_S, 4 * SCRAPE_INTERVAL_S))


def load(uid: str) -> dict[str, Any]:
    """A committed dashboard by its uid."""
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{uid}.json").read_text(encoding="utf-8"))
    return found


def panels(dashboard: Json) -> Iterator[dict[str, Any]]:
    """Every panel, those of collapsed rows too; rows themselves are none."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def targets(dashboard: Json) -> Iterator[Target]:
    """Every query: of panels, then of annotations, then of variables."""
    uid = dashboard["uid"]
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield _target(uid, "panel", panel["title"], target)
    for annotation in dashboard["annotations"]["list"]:
        if annotation["datasource"]["type"] in _LANGUAGES:
            yield _target(uid, "annotation", annotation["name"], annotation)
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield _variable(uid, variable)


def _target(uid: str, place: Place, title: str, target: Json) -> Target:
    language = _LANGUAGES[target["datasource"]["type"]]
    asked = target if language == "promql" else target.get("target", target)
    return Target(
        dashboard=uid,
        place=place,
        title=title,
        ref=target.get("refId", "A"),
        language=language,
        text=asked["expr" if language == "promql" else "rawSql"],
        legend=target.get("legendFormat", ""),
        instant=bool(target.get("instant")),
    )


def _variable(uid: str, variable: Json) -> Target:
    language = _LANGUAGES[variable["datasource"]["type"]]
    if language == "sql":
        text = variable["query"]
    else:
        found = _ASKED.fullmatch(variable["query"]["query"])
        if found is None:
            raise ValueError(f"neither label_values(…) nor query_result(…): {variable['query']}")
        text = found["selector"] or found["query"]
    return Target(
        dashboard=uid,
        place="variable",
        title=variable["name"],
        ref="variable",
        language=language,
        text=text,
        instant=True,
    )


def promql(text: str, window: Window, variables: Variables) -> str:
    """What Grafana sends to Prometheus."""
    seconds = {
        "__range": window.range_s,
        "__interval": round(window.step_s),
        "__rate_interval": window.rate_interval_s,
    }

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        if name in seconds:
            return f"{seconds[name]}s"
        found = variables[name]
        if isinstance(found, str):
            return found
        escaped = (_SPECIAL.sub(lambda sign: "\\\\" + sign[0], one) for one in found)
        return f"({'|'.join(escaped)})"

    return _REFERENCE.sub(value, text)


def sql(text: str, window: Window, variables: Variables) -> str:
    """What Grafana sends to PostgreSQL."""
    start, end = (f"'{_iso(moment)}'" for moment in (window.start_s, window.end_s))
    text = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN {start} AND {end}", text)
    text = text.replace("$__timeFrom()", start).replace("$__timeTo()", end)

    def value(match: re.Match[str]) -> str:
        found = variables[match[1] or match[3]]
        if match[2] == "sqlstring":
            given = [found] if isinstance(found, str) else found
            return ",".join("'" + one.replace("'", "''") + "'" for one in given)
        if match[2] is not None or not isinstance(found, str):
            raise ValueError(f"quote it with :sqlstring: {match[0]}")
        return found

    return _REFERENCE.sub(value, text)


def _iso(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).isoformat(timespec="milliseconds")
