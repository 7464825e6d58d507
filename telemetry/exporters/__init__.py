"""Exports of a stored run. A new format is one new file here and one line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from telemetry.exporters import clients_csv, codecarbon_csv, rounds_csv, run_html, run_json
from telemetry.exporters.base import Format, Notes

__all__ = ["FORMATS", "Format", "Notes"]

FORMATS: Final[Mapping[str, Format]] = MappingProxyType(
    {
        known.name: known
        for known in (
            rounds_csv.FORMAT,
            clients_csv.FORMAT,
            codecarbon_csv.FORMAT,
            run_json.FORMAT,
            run_html.FORMAT,
        )
    }
)
"""Every format by its name; the first is the default."""
