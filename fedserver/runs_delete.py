"""``fedserver runs delete``: forget a run, and say what else knows of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.runs_common import (
    FileOption,
    RunArgument,
    StoreOption,
    local_time,
    opened_store,
    output_dir,
    resolved_run,
)
from fedserver.saying import say
from telemetry.domain import StoredRun, utc_now
from telemetry.store.sql.sqlite import copies_beside


def delete(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Delete a run from the store, for good: its figures, its clients, its reports.

    Its id stays, with its seal and when it was deleted. Files are not touched; those that know of
    the run are named.
    """
    with opened_store(store, config) as opened:
        stored = resolved_run(opened, run)
        _ask(stored, opened.url, yes)
        opened.delete_run(stored.run_id, utc_now())
        say(f"deleted run {stored.run_id} from {opened.url}")
        left = [*_files_of(output_dir(config) / stored.run_id), *copies_beside(opened.url)]
    if left:
        say("not deleted, and may tell of it:")
        for path in left:
            say(f"  {path}")


def _ask(run: StoredRun, where: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        text = "there is nobody to ask: --yes deletes without asking"
        raise ConfigError([Problem(path="runs delete", text=text, source="")])
    typer.confirm(
        f"delete run {run.run_id} ({run.info.run_name}, {run.status}, started "
        f"{local_time(run.info.started_at)}) from {where}? It cannot be brought back",
        abort=True,
    )


def _files_of(folder: Path) -> list[Path]:
    """What the run's server wrote beside the store."""
    return sorted(folder.iterdir()) if folder.is_dir() else []
