"""Two lines in Flower's own log, for servers without one of ours: where the record is, and its total.

Flower's logger is the one that a ServerApp's ``flwr log`` and a console show; ours is silent there.
"""

from __future__ import annotations

import logging
import os.path
import threading
from typing import TYPE_CHECKING, Final

from telemetry.words import grams

if TYPE_CHECKING:
    from fedserver_hooks.recorder import RoundRecorder

logger = logging.getLogger("flwr")

WAIT_S: Final = 0.25
_SQLITE_FILE: Final = "sqlite:///"


def say_where(recorder: RoundRecorder) -> None:
    """After the start: the run's id and the command that shows it, from wherever it is given."""
    if recorder.started:
        logger.info(
            "footprint of this run: fedserver runs show %s --store %s",
            recorder.run.run_id,
            _from_anywhere(recorder.store.url),
        )


def say_total(recorder: RoundRecorder) -> None:
    """After the end: what the run came to, where that can be read within `WAIT_S`."""
    if not recorder.started or not recorder.run.tracked:
        return
    # A store that hangs must not keep a training from ending.
    asked = threading.Thread(
        target=_say_total, args=(recorder,), name="telemetry-total", daemon=True
    )
    asked.start()
    asked.join(WAIT_S)


def _say_total(recorder: RoundRecorder) -> None:
    try:
        total_kg = recorder.store.run(recorder.run.run_id).totals.total_emissions_kg
    except Exception as error:  # noqa: BLE001 - a training ends here, whatever the store says
        recorder.failures.note("store", "the run's total cannot be read", error=error)
        return
    words = "unknown" if total_kg is None else grams(total_kg)
    logger.info("footprint of run %s: %s", recorder.run.run_id, words)


def _from_anywhere(url: str) -> str:
    """A URL that means the same in every folder: a ServerApp's is seldom the one a person is in."""
    if url.startswith(_SQLITE_FILE) and url != _SQLITE_FILE:
        return _SQLITE_FILE + os.path.abspath(url.removeprefix(_SQLITE_FILE))
    return url
