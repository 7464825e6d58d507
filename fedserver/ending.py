"""How a run ends: its record is finished, clients are let go, artefacts are written, the rest is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from fedserver.artefacts import write_exports, write_model
from fedserver.assemble import Server
from fedserver.checkpoint import remove_checkpoint
from fedserver.config import ServerConfig
from fedserver.leftovers import keep_rest
from fedserver.loop import LoopResult
from fedserver.resuming import folder_of
from fedserver.stopping import StopSignal
from fedserver.wording import closing_line, sealed_line
from fedserver_hooks.intensity import lookup
from fedserver_hooks.recorder import LAST_WRITE_S, RoundRecorder
from telemetry.domain import RunStatus
from telemetry.errors import TelemetryError
from telemetry.sender import Sender
from telemetry.store import Store

logger = logging.getLogger(__name__)

EXIT_COMPLETED: Final = 0
EXIT_FAILED: Final = 1
ENDED_WELL: Final = ("completed", "stopped_on_budget")
"""Ends as configured: exit code 0, and no run to resume."""
DISCONNECT_GRACE_S: Final = 5.0
"""How long an ordinary end waits for clients that are still busy."""
FINAL_WRITE_S: Final = 2.0
"""How long an ordinary end waits for the store once more, after lingering."""
SIGNAL_WRITE_S: Final = 0.6
"""How long an end by a signal waits for the store: the process is gone within two seconds."""
FINAL_SEND_S: Final = 5.0
"""How long an ordinary end waits for the telemetry service, after lingering."""
HURRIED_SEND_S: Final = 0.3
STOP_SENDING_S: Final = 0.3


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    run_id: str
    exit_code: int
    status: RunStatus
    closing: str
    complete: bool = True
    """Whether all of the run was in the store when this was said."""
    artefacts: list[Path] = field(default_factory=list)


def finish_as_failed(recorder: RoundRecorder) -> Callable[..., bool]:
    """On any exception: the run ends as failed, with the reason (a no-op once it has ended)."""

    def on_exit(kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if kind is not None:
            recorder.finish("failed", f"{kind.__name__}: {error}"[:256], SIGNAL_WRITE_S)
        return False

    return on_exit


def end_run(
    config: ServerConfig, store: Store, server: Server, result: LoopResult, stop: StopSignal
) -> Outcome:
    """Write the model, finish the record, let the clients go, write the exports."""
    recorder = server.recorder
    hurried = stop.is_set
    if result.reason and result.ended != "stopped_on_budget":  # the closing line says that one
        logger.error("the run %s: %s", result.ended, result.reason)
    run_id = recorder.run.run_id
    folder = config.model.output_dir / run_id
    paths = write_model(folder, result.arrays)
    recorder.finish(result.ended, result.reason, SIGNAL_WRITE_S if hurried else LAST_WRITE_S)
    server.grid.disconnect_all(0.0 if hurried else DISCONNECT_GRACE_S)
    server.grid.stop(0.2 if hurried else 0.5)
    # Asked before they are written: what is in the store from here on, its seal too, is in them.
    complete = recorder.delivered()
    paths += write_exports(folder, store, run_id)
    if result.ended in ENDED_WELL:  # nothing is left to go on with
        remove_checkpoint(folder_of(config, run_id))
    else:
        _log_how_to_resume(config, run_id)
    closing = closing_of(store, run_id)
    if not complete:
        left = recorder.undelivered_rounds
        closing = f"incomplete, {left} round(s) are not in the store yet: {closing}"
    codes = {"failed": EXIT_FAILED, "interrupted": stop.exit_code}
    code = codes.get(result.ended, EXIT_COMPLETED)
    return Outcome(run_id, code, result.ended, closing, complete, paths)


def tell_again(
    config: ServerConfig, store: Store, server: Server, outcome: Outcome, result: LoopResult
) -> Outcome:
    """The store has taken what it refused at the end: the artefacts and the total are whole now."""
    run_id = server.recorder.run.run_id
    folder = config.model.output_dir / run_id
    paths = [*write_model(folder, result.arrays), *write_exports(folder, store, run_id)]
    whole = replace(outcome, closing=closing_of(store, run_id), complete=True, artefacts=paths)
    logger.info("run %s is in the store now: %s", run_id, whole.closing)
    return whole


def let_go(config: ServerConfig, server: Server, stop: StopSignal) -> None:
    """Last of all: keep what the store would not take, and give up the run."""
    delivered = keep_rest(config.model.output_dir, server.recorder)
    if delivered or not stop.is_set:  # a signal's two seconds; a dead process is released anyway
        server.recorder.release()


def end_sending(sender: Sender, hurried: Callable[[], bool] = lambda: False) -> None:
    """Deliver the rest if that is quickly done, and say what has to wait for somebody else."""
    if hurried():
        sender.drain(HURRIED_SEND_S)
    else:
        sender.drain(FINAL_SEND_S, unless=hurried)
    sender.stop(STOP_SENDING_S)
    left = sender.backlog()
    if left.oldest_at is not None:
        logger.warning(
            "%d round(s), or how a run ended, are not with the telemetry service: the next start "
            "delivers them, or fedserver telemetry flush",
            left.rounds,
        )


def _log_how_to_resume(config: ServerConfig, run_id: str) -> None:
    if folder_of(config, run_id).exists():
        logger.info(
            "to go on after the last whole round, with the same configuration: "
            "fedserver run --resume %s",
            run_id,
        )


def log_end(outcome: Outcome, _: Store) -> None:
    """The closing line, and where everything is."""
    logger.info("run %s %s: %s", outcome.run_id, outcome.status, outcome.closing)
    for path in outcome.artefacts:
        logger.info("wrote %s", path)


def closing_of(store: Store, run_id: str) -> str:
    """The run's figures in one line, as they stand in the store."""
    try:
        run = store.run(run_id)
        rounds = list(store.rounds(run_id))
    except TelemetryError as error:
        return f"the footprint could not be read back: {error}"
    closing = closing_line(run, rounds, country_name(run.info.factors.country))
    return sealed_line(closing, run)


def country_name(code: str | None) -> str | None:
    """A country's name by its code; None where the tables are not installed or do not know it."""
    if code is None:
        return None
    try:
        return lookup(code).country_name
    except TelemetryError:
        return None
