"""Every metric that ``/metrics`` may have, in one list: docs and dashboards are made from it."""

from __future__ import annotations

from typing import Any, Final

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
