"""Rounds that the store would not take before the process had to go: kept, and delivered later.

They are written to ``undelivered.json`` in the run's output folder. The next server that starts with
the same output folder puts them into the store. Of a run without ``client_rows`` the file holds sums
and no row of a client, as its store does.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import AwareDatetime, BaseModel, ValidationError

from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.run_end import Ending
from telemetry.domain import RoundRecord, RowlessRound, RunStatus
from telemetry.errors import RoundConflict, TelemetryError
from telemetry.store import Store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

FILE_NAME: Final = "undelivered.json"
STAGE: Final = "store"
"""Under which failures are counted."""


class _Content(BaseModel):
    """What stands in a file, be it one of another version: its rounds are read one by one."""

    run_id: str
    status: RunStatus
    ended_at: AwareDatetime | None
    reason: str | None
    rounds: list[dict[str, Any]]


def keep(folder: Path, run_id: str, rounds: Sequence[RoundRecord], ending: Ending | None) -> Path:
    """Write what could not be stored, be it the run's end alone; raises OSError."""
    content = {
        "run_id": run_id,
        "status": ending.status if ending else "interrupted",
        "ended_at": ending.ended_at.isoformat() if ending else None,
        "reason": ending.reason if ending else None,
        "rounds": [json.loads(_kept_form(record).model_dump_json()) for record in rounds],
    }
    path = folder / FILE_NAME
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    os.replace(part, path)
    return path


def _kept_form(record: RoundRecord) -> RoundRecord:
    return record if record.client_rows else RowlessRound.of(record)


def _read(item: dict[str, object]) -> RoundRecord:
    kind = RowlessRound if "sums" in item else RoundRecord
    return kind.model_validate_json(json.dumps(item))


def keep_rest(output_dir: Path, recorder: RoundRecorder) -> bool:
    """Once a run has ended: give up what the store would not take, and keep it for the next start.

    Whether there was nothing to keep. Raises nothing.
    """
    if recorder.delivered() or recorder.ending is None:
        return True
    rounds, run_id = recorder.leftovers(), recorder.run.run_id
    try:
        path = keep(output_dir / run_id, run_id, rounds, recorder.ending)
    except OSError as error:
        logger.error("%d round(s) are lost: %s", len(rounds), error)
    else:
        logger.warning("%d round(s) are kept in %s for the next start", len(rounds), path)
    return False


def deliver(output_dir: Path, store: Store, failures: Failures) -> int:
    """Put what earlier servers kept into the store; returns the number of rounds. Raises nothing.

    What goes wrong is noted in ``failures``. A file that cannot be delivered stays where it is, and is
    tried again by the next start. One with rounds that the store has with other content is set aside as
    ``undelivered.conflict``.
    """
    delivered = 0
    for path in sorted(output_dir.glob(f"*/{FILE_NAME}")):
        try:
            delivered += _deliver(path, store, failures)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            failures.note(STAGE, f"{path} is not read and stays: {where}: {first['msg']}")
        except (OSError, ValueError, TelemetryError) as error:
            failures.note(STAGE, f"{path} could not be delivered and stays: {error}")
        except Exception as error:  # noqa: BLE001 - an old file must not keep a server from starting
            failures.note(STAGE, f"{path} could not be delivered and stays", error=error)
    return delivered


def _deliver(path: Path, store: Store, failures: Failures) -> int:
    content = _Content.model_validate(json.loads(path.read_bytes()))
    records = [_read(item) for item in content.rounds]
    refused = 0
    for record in records:
        try:
            store.record_round(record)
        except RoundConflict as error:  # somebody closed it meanwhile, with less in it
            refused += 1
            failures.note(STAGE, f"{path}, {error}")
    if content.ended_at is not None:
        store.finish_run(content.run_id, content.status, content.ended_at, content.reason)
    # Last of all: what raised above finds its file again.
    if refused:
        kept = path.rename(_free_name(path.with_suffix(".conflict")))
        logger.warning("%d round(s) are kept in %s for a person to look at", refused, kept)
    else:
        path.unlink(missing_ok=True)
    logger.info("%s: %d round(s) delivered", path, len(records) - refused)
    return len(records) - refused


def _free_name(path: Path) -> Path:
    """``path``, numbered if there is one already: a run that was resumed may leave another."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free
