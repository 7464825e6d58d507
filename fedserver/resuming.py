"""Going on with a run that ended before its time: ``fedserver run --resume RUN``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flwr.app import ArrayRecord

from fedserver import checkpoint as files
from fedserver.checkpoint import Checkpoint, CheckpointError
from fedserver.config import ServerConfig
from fedserver.errors import ConfigError, Problem
from telemetry.domain import StoredRun
from telemetry.errors import RunNotFound
from telemetry.selection import resolve_run
from telemetry.store import Store

logger = logging.getLogger(__name__)

OPTION: Final = "--resume"
SAME: Final = ("rounds", "metrics", "strategy", "privacy", "track_emissions", "emissions")
"""Options that a run keeps for its whole life: they are part of its record, or of its model."""
SLOW_S: Final = 1.0
"""A checkpoint that takes longer than this is worth a line in the log, once."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run to go on with, and where it was."""

    run: StoredRun
    checkpoint: Checkpoint

    @property
    def run_id(self) -> str:
        """Its id, which it keeps."""
        return self.run.run_id

    @property
    def next_round(self) -> int:
        """The first round to play."""
        return self.checkpoint.round_number + 1

    def restore(self, strategy: object) -> None:
        """Bring strategy and random numbers to where they were. Raises `ConfigError`."""
        try:
            files.restore_states(strategy, self.checkpoint.states)
            files.restore_randomness(self.checkpoint.randomness)
        except CheckpointError as error:
            raise _refused(f"run {self.run_id}: {error}") from error


def folder_of(config: ServerConfig, run_id: str) -> Path:
    """Where the checkpoints of a run are."""
    return config.model.output_dir / run_id / files.FOLDER


def find_resumable(config: ServerConfig, store: Store, wanted: str) -> Resumed:
    """The run that ``wanted`` names, with its last checkpoint.

    Raises `ConfigError`: no such run, it goes on or is complete, it left no checkpoint that can be
    read, or the configuration is not the one that it began with.
    """
    try:
        run = resolve_run(store, wanted)
    except RunNotFound as error:
        raise _refused(str(error)) from None
    if run.status == "running":
        raise _refused(f"run {run.run_id} is still running{_where(run)}")
    if run.status == "completed":
        raise _refused(f"run {run.run_id} is completed: nothing is left to do")
    if run.status == "stopped_on_budget":
        model = config.model.output_dir / run.run_id / "model.npz"
        raise _refused(
            f"run {run.run_id} has used its budget, which a run keeps for its life; to train on, "
            f"start a new run from its model (model.initial: {model})"
        )
    folder = folder_of(config, run.run_id)
    try:
        last = files.load_checkpoint(folder)
    except CheckpointError as error:
        raise _refused(
            f"run {run.run_id} cannot go on: {error} (a run that ended before its first round did "
            "leaves none; model.output_dir must be the one that it had)"
        ) from None
    _require_same_settings(config, last)
    if last.round_number >= config.rounds and run.status == "failed":
        raise _refused(f"run {run.run_id} failed in its last round: nothing is left to play")
    return Resumed(run, last)


def saver(
    config: ServerConfig, run_id: str, strategy: object
) -> Callable[[int, ArrayRecord], None]:
    """What writes a checkpoint after each round. Never raises: the training matters more."""
    folder = folder_of(config, run_id)
    settings = settings_of(config)
    told: set[str] = set()

    def tell(message: str, *facts: object) -> None:
        if message not in told:
            told.add(message)
            logger.warning(message, *facts)

    def save(round_number: int, arrays: ArrayRecord) -> None:
        began = time.monotonic()
        try:
            files.save_checkpoint(
                folder,
                Checkpoint(
                    round_number=round_number,
                    arrays=arrays,
                    settings=settings,
                    states=files.states_of(strategy),
                    randomness=files.randomness_now(),
                ),
            )
        except Exception as error:  # noqa: BLE001 - a full disk, or a strategy's own state
            tell("no checkpoint after round %d: %s; the training goes on", round_number, error)
            return
        took = time.monotonic() - began
        if took > SLOW_S:
            tell("writing the checkpoint of round %d took %.1f s", round_number, took)

    return save


def settings_of(config: ServerConfig) -> dict[str, Any]:
    """The options that must not change, as JSON has them."""
    values = config.model_dump(mode="json", include=set(SAME))
    return {name: values[name] for name in SAME}


def _require_same_settings(config: ServerConfig, last: Checkpoint) -> None:
    now, then = settings_of(config), last.settings
    problems = [
        Problem(path, f"{_shown(a)} now, but the run began with {_shown(b)}", OPTION)
        for name in SAME
        for path, a, b in _differences(name, now[name], then.get(name))
    ]
    if problems:
        raise ConfigError(problems)


def _differences(path: str, now: Any, then: Any) -> list[tuple[str, Any, Any]]:
    if not (isinstance(now, Mapping) and isinstance(then, Mapping)):
        return [] if now == then else [(path, now, then)]
    keys = dict.fromkeys((*now, *then))
    return [d for key in keys for d in _differences(f"{path}.{key}", now.get(key), then.get(key))]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _where(run: StoredRun) -> str:
    return "" if run.owner is None else f" (process {run.owner.pid})"


def _refused(text: str) -> ConfigError:
    return ConfigError([Problem("", text, OPTION)])
