"""What holds the panels: rows on Grafana's grid, variables, links, marks, and the dashboard itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana.checked import checked
from grafana.fields import QUIET, Json
from grafana.panels import PROMETHEUS, SQL, select

SCHEMA_VERSION: Final = 42
GRID: Final = 24
TAGS: Final = ("federated-learning", "emissions")
DASHBOARDS: Final = {
    "fl-run-overview": "Run overview",
    "fl-fleet": "Fleet",
    "fl-clients": "Clients",
    "fl-service-health": "Service health",
}
"""Titles by uid. URLs and links depend on the uids: they never change."""


# --- layout --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """Panels beside one another, each with its share of 24 columns."""

    height: int
    panels: Sequence[tuple[int, Json]]


@dataclass(frozen=True, slots=True)
class Section:
    """Rows below a headline."""

    title: str
    rows: Sequence[Row]
    collapsed: bool = False


def _placed(rows: Sequence[Row], top: int) -> tuple[list[Json], int]:
    """The panels with their places, and where the next row begins."""
    found = []
    for row in rows:
        left = 0
        for width, panel in row.panels:
            found.append(panel | {"gridPos": {"x": left, "y": top, "w": width, "h": row.height}})
            left += width
        if left != GRID:
            raise ValueError(f"a row is {left} columns wide: {[p['title'] for _, p in row.panels]}")
        top += row.height
    return found, top


def _laid_out(sections: Sequence[Section]) -> Iterator[Json]:
    top = 0
    for section in sections:
        if section.title:
            headline = {
                "type": "row",
                "title": section.title,
                "collapsed": section.collapsed,
                "gridPos": {"x": 0, "y": top, "w": GRID, "h": 1},
                "panels": [],
            }
            top += 1
            placed, below = _placed(section.rows, top)
            if section.collapsed:
                yield headline | {"panels": placed}
                continue  # what is folded away takes no room
            yield headline
        else:
            placed, below = _placed(section.rows, top)
        yield from placed
        top = below


def _numbered(panels: Iterator[Json]) -> list[Json]:
    """With ids that are unique, those within folded rows too."""
    number = 0
    found = []
    for panel in panels:
        number += 1
        panel = {"id": number, **panel}
        if panel["type"] == "row":
            inner = []
            for one in panel["panels"]:
                number += 1
                inner.append({"id": number, **one})
            panel["panels"] = inner
        found.append(panel)
    return found


# --- variables -----------------------------------------------------------------------------------


def data_source(name: str, label: str, kind: str) -> Json:
    """Which data source of a kind the panels ask."""
    return {
        "type": "datasource",
        "name": name,
        "label": label,
        "query": kind,
        "regex": "",
        "current": {},
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "options": [],
    }


PROMETHEUS_VARIABLE: Final = data_source("datasource", "Data source", "prometheus")
SQL_VARIABLE: Final = data_source("sql_datasource", "SQL data source", SQL["type"])


def label_values(
    name: str, label: str, selector: str, of: str, *, several: bool = False, newest: bool = False
) -> Json:
    """A variable with the values of a label; ``newest``: the greatest first."""
    query = f"label_values({checked(selector, f'{{{{{of}}}}}')}, {of})"
    return _variable(name, label, several=several) | {
        "datasource": PROMETHEUS,
        "query": {"qryType": 1, "query": query, "refId": "variable"},
        "definition": query,
        "sort": 2 if newest else 1,
        "allValue": ".+" if several else None,
    }


UNSEEN: Final[Json] = {"hide": 2, "skipUrlSync": True}
"""Of a variable that follows from others: not shown, and in no link."""


def from_query(name: str, expr: str, regex: str) -> Json:
    """A variable that nobody sees, with what ``regex`` finds in what PromQL returns."""
    query = f"query_result({checked(' '.join(expr.split()))})"
    return _variable(name, name, several=False) | {
        "datasource": PROMETHEUS,
        "query": {"qryType": 3, "query": query, "refId": "variable"},
        "definition": query,
        "regex": regex,
        "sort": 0,
        "allValue": None,
        **UNSEEN,
    }


def selected(name: str, label: str, sql: str, *, several: bool = False) -> Json:
    """A variable with what SQL returns: ``__value`` and ``__text``, in its order."""
    query = select(sql)["rawSql"]
    return _variable(name, label, several=several) | {
        "datasource": SQL,
        "query": query,
        "definition": query,
        "sort": 0,
        "allValue": None,
    }


def _variable(name: str, label: str, *, several: bool) -> Json:
    return {
        "type": "query",
        "name": name,
        "label": label,
        "regex": "",
        "current": {"text": ["All"], "value": ["$__all"]} if several else {},
        "hide": 0,
        "includeAll": several,
        "multi": several,
        "refresh": 2,
        "options": [],
        "skipUrlSync": False,
    }


JOB_VARIABLE: Final = label_values("job", "Job", "fl_build_info", "job", several=True)

# --- marks ---------------------------------------------------------------------------------------

_OWN_MARKS: Final[Json] = {
    "name": "Annotations & Alerts",
    "builtIn": 1,
    "type": "dashboard",
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
}


def marks(name: str, expr: str, title: str, **more: Any) -> Json:
    """Marks on panels over time, from PromQL: a stretch for as long as a series is there."""
    return {
        "name": name,
        "datasource": PROMETHEUS,
        "enable": True,
        "hide": False,
        "iconColor": QUIET,
        "expr": checked(" ".join(expr.split()), title),
        "titleFormat": title,
        "textFormat": "",
        "tagKeys": "",
        **more,
    }


def sql_marks(name: str, sql: str, *, enable: bool = True) -> Json:
    """Marks from SQL with the columns time, timeend, text and tags."""
    return {
        "name": name,
        "datasource": SQL,
        "enable": enable,
        "hide": False,
        "iconColor": QUIET,
        "target": select(sql, ref="Anno"),
    }


# --- the dashboard -------------------------------------------------------------------------------


def link(title: str, url: str, *, icon: str = "dashboard", keep_time: bool = True) -> Json:
    """In the head of a dashboard; what is chosen goes along."""
    return {
        "type": "link",
        "title": title,
        "url": url,
        "icon": icon,
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": keep_time,
        "targetBlank": False,
    }


def zoom(uid: str) -> Json:
    """To the time of the chosen run: what the variables ``run_from`` and ``run_to`` say."""
    url = f"/d/{uid}?from=${{run_from}}&to=${{run_to}}"
    return link("Zoom to the run", url, icon="bolt", keep_time=False)


def dashboard(
    uid: str,
    description: str,
    *,
    sections: Sequence[Section],
    variables: Sequence[Json],
    annotations: Sequence[Json] = (),
    links: Sequence[Json] = (),
    start: str,
    refresh: str,
) -> Json:
    """A whole dashboard in Grafana's classic form, which file provisioning takes."""
    return {
        "uid": uid,
        "title": DASHBOARDS[uid],
        "description": " ".join(description.split()),
        "tags": list(TAGS),
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": start, "to": "now"},
        "refresh": refresh,
        "timepicker": {},
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "liveNow": False,
        "links": [
            *links,
            *(link(title, f"/d/{other}") for other, title in DASHBOARDS.items() if other != uid),
        ],
        "templating": {"list": list(variables)},
        "annotations": {"list": [_OWN_MARKS, *annotations]},
        "panels": _numbered(_laid_out(sections)),
    }
