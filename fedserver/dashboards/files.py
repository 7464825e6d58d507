"""The dashboards as files: in a checkout where they are made, in an installed package beside this module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedserver.errors import ConfigError, Problem

_INSTALLED: Final = Path(__file__).parent / "json"
_CHECKOUT: Final = Path(__file__).parents[2] / "grafana" / "dashboards"
OVERVIEW_UID: Final = "fl-run-overview"
"""The dashboard that runs are marked on."""
PROMETHEUS_TYPES: Final = frozenset({"prometheus"})
POSTGRES_TYPES: Final = frozenset({"grafana-postgresql-datasource", "postgres"})
"""Today's name and the one before Grafana 10.3; they are the same plugin."""

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A data source of Grafana's that the dashboards shall use."""

    uid: str
    name: str


def load_dashboards(folder: Path | None = None) -> list[Json]:
    """Every dashboard, by uid. Raises `ConfigError` where there is none or one cannot be read."""
    if folder is None:
        folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            dashboard = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError([Problem(str(path), f"is no dashboard: {error}", "")]) from error
        if not isinstance(dashboard, dict) or dashboard.get("uid") != path.stem:
            raise ConfigError([Problem(str(path), "has another uid than its name says", "")])
        found.append(dashboard)
    if not found:
        raise ConfigError([Problem(str(folder), "holds no dashboards", "")])
    return found


def bound(dashboard: Json, chosen: Mapping[frozenset[str], Chosen]) -> Json:
    """The dashboard with its variables of data sources set to those that were chosen.

    ``chosen`` maps the types that a variable may ask for to a data source; a variable that none is
    chosen for stays, and Grafana picks what it has of that type.
    """
    copy = deepcopy(dashboard)
    for variable in copy.get("templating", {}).get("list", []):
        if variable.get("type") != "datasource":
            continue
        for types, source in chosen.items():
            if variable.get("query") in types:
                variable["current"] = {"text": source.name, "value": source.uid}
    return copy
