"""Every metric that ``/metrics`` may have, in one list: docs and dashboards are made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, get_args

from telemetry.domain import Component, Outcome, ReportOutcome, Scope, Sensor, ServerPhase
from telemetry.exporters.families import FAMILIES
from telemetry.exporters.family import Family
from telemetry.exporters.process_families import (
    AUTH_FAILURES,
    HTTP_FAMILIES,
    INGEST_FAMILIES,
    LIBRARY_FAMILIES,
    PROCESS_FAMILIES,
    STORE_FAMILIES,
)
from telemetry.exporters.prometheus import STAGES
from telemetry.exporters.samples import CLOSED_STATUSES

CATALOGUE: Final[tuple[Family[Any], ...]] = (
    *FAMILIES,
    *PROCESS_FAMILIES,
    *STORE_FAMILIES,
    *HTTP_FAMILIES,
    AUTH_FAILURES,
    *INGEST_FAMILIES,
    *LIBRARY_FAMILIES,
)
"""In the order in which they are told of; names are unique."""


def _any_of(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


LABELS: Final[Mapping[str, str]] = {
    "run_id": "the run: start in UTC and six random digits",
    "run_name": "as the run was named; not unique",
    "strategy": "name of the strategy",
    "privacy": "name of the mechanism, or `none`",
    "country": "ISO 3166 alpha-3; empty for the world average",
    "intensity_source": "where the carbon intensity is from",
    "server_scope": f"what the server's figure is of: {_any_of(get_args(Scope))}",
    "server_sensor": f"what the server's meter read: {_any_of(get_args(Sensor))}; "
    "`model`, `constant` and `unknown` are no measurement",
    "pue": "power usage effectiveness of the server's site",
    "component": f"{_any_of(get_args(Component))}; of estimates also `communication`",
    "phase": f"of the server: {_any_of(get_args(ServerPhase))}",
    "quality": "how an estimate came about: `estimated` (from bytes), `imputed` (for silent clients)",
    "bound": "`low`, `central`, `high`",
    "direction": "`to_clients`, `from_clients`",
    "status": f"of a round: {_any_of(CLOSED_STATUSES)}; of an HTTP request: the status code, or `none`",
    "outcome": f"of a report: {_any_of(get_args(ReportOutcome))}; of a delivery: `stored`, `repeated`, "
    "`refused`, `failed`, `busy`",
    "state": f"of clients: `connected`, `selected`, {_any_of(get_args(Outcome))}",
    "name": "of a training metric, as in `metrics`",
    "split": "`train`, `evaluate`",
    "round": "number of the round",
    "source": "where the carbon intensity is from, with the year",
    "version": "of the package, or of Python",
    "stage": f"where telemetry failed: {_any_of(STAGES)}",
    "method": "of an HTTP request; `other` for one that is none of HTTP's own",
    "route": "template of the route, such as `/api/v1/runs/{run_id}`, or `unmatched`",
    "implementation": "of Python",
    "major": "of Python",
    "minor": "of Python",
    "patchlevel": "of Python",
}
"""What stands in each label, by its name; the same in all metrics that have it."""
