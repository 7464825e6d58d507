"""Rounds that the store would not take before the process had to go: kept, and delivered later.

They are written to ``undelivered.json`` in the run's output folder. The next server that starts with
the same output folder puts them into the store.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from fedserver_hooks.recorder import Ending
from telemetry.domain import RoundRecord
from telemetry.errors import RoundConflict, TelemetryError
from telemetry.store import Store

logger = logging.getLogger(__name__)

FILE_NAME: Final = "undelivered.json"


def keep(folder: Path, run_id: str, rounds: Sequence[RoundRecord], ending: Ending | None) -> Path:
    """Write what could not be stored, be it the run's end alone; raises OSError."""
    content = {
        "run_id": run_id,
        "status": ending.status if ending else "interrupted",
        "ended_at": ending.ended_at.isoformat() if ending else None,
        "reason": ending.reason if ending else None,
        "rounds": [json.loads(record.model_dump_json()) for record in rounds],
    }
    path = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    os.replace(part, path)
    return path


def deliver(output_dir: Path, store: Store) -> int:
    """Put what earlier servers kept into the store; returns the number of rounds. Raises nothing.

    A file that cannot be delivered stays where it is.
    """
    delivered = 0
    for path in sorted(output_dir.glob(f"*/{FILE_NAME}")):
        try:
            delivered += _deliver(path, store)
            path.unlink(missing_ok=True)
        except (OSError, ValueError, TelemetryError) as error:
            logger.warning("%s could not be delivered and stays: %s", path, error)
    return delivered


def _deliver(path: Path, store: Store) -> int:
    content = json.loads(path.read_text(encoding="utf-8"))
    records = [RoundRecord.model_validate_json(json.dumps(item)) for item in content["rounds"]]
    refused = 0
    for record in records:
        try:
            store.record_round(record)
        except RoundConflict as error:  # somebody closed it meanwhile, with less in it
            refused += 1
            logger.warning("%s: %s", path, error)
    if refused:
        path.rename(path.with_suffix(".conflict"))  # kept for a person to look at
    if content["ended_at"] is not None:
        ended_at = datetime.fromisoformat(content["ended_at"])
        store.finish_run(content["run_id"], content["status"], ended_at, content["reason"])
    logger.info("%s: %d round(s) delivered", path, len(records) - refused)
    return len(records) - refused
