"""What a run leaves behind in its output folder: footprint.csv, run.json, model.npz."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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


def write_model(folder: Path, arrays: ArrayRecord | None) -> list[Path]:
    """Write the model, if there is one, as `write_exports` does.

    Before the run is said to have ended: whoever is killed in between has lost nothing.
    """
    if arrays is None:
        return []
    return _written(folder, {"model.npz": lambda path: save_model(path, arrays)})


def write_exports(folder: Path, store: Store, run_id: str) -> list[Path]:
    """Write what can be written and return those paths; what cannot is logged, never raised."""
    saves = {name: partial(FORMATS[form].save, store, run_id) for name, form in EXPORTS.items()}
    return _written(folder, saves)


def _written(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> list[Path]:
    written: list[Path] = []
    for name, write in files.items():
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(path)
        except (OSError, TelemetryError, ValueError) as error:
            logger.error("could not write %s: %s", path, error)
        else:
            written.append(path)

    return written
