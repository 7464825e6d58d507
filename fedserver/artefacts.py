"""What a run leaves behind in its output folder: footprint.csv, run.json, model.npz."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from flwr.app import ArrayRecord

from fedserver.model_io import save_model
from telemetry.errors import TelemetryError
from telemetry.exporters import FORMATS
from telemetry.store import Store

logger = logging.getLogger(__name__)

EXPORTS: Final = {"footprint.csv": "csv", "run.json": "json"}


def write_artefacts(
    folder: Path, store: Store, run_id: str, arrays: ArrayRecord | None
) -> list[Path]:
    """Write what can be written and return those paths; what cannot is logged, never raised."""
    written: list[Path] = []

    def attempt(name: str, write: Callable[[Path], object]) -> None:
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(path)
        except (OSError, TelemetryError, ValueError) as error:
            logger.error("could not write %s: %s", path, error)
        else:
            written.append(path)

    if arrays is not None:  # first: it is what the training was for
        attempt("model.npz", lambda path: save_model(path, arrays))
    for name, format_name in EXPORTS.items():
        attempt(name, partial(FORMATS[format_name].save, store, run_id))
    return written
