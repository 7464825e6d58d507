"""Emissions telemetry of federated trainings: records, store, exporters, service."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from telemetry.domain import RoundRecord, RoundSummary, RunInfo, RunTotals, StoredRun
from telemetry.errors import TelemetryError
from telemetry.reports import ClientReport

if TYPE_CHECKING:
    from telemetry.service.app import create_app
    from telemetry.store import Store, open_store

__all__ = [
    "ClientReport",
    "RoundRecord",
    "RoundSummary",
    "RunInfo",
    "RunTotals",
    "Store",
    "StoredRun",
    "TelemetryError",
    "create_app",
    "open_store",
]

_HOME = {"Store": "store", "open_store": "store", "create_app": "service.app"}


def __getattr__(name: str) -> Any:
    """Load the database layer and the web framework when they are first asked for, not before."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
