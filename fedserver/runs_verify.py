"""``fedserver runs verify``: whether stored runs still are what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.progress import progress
from fedserver.runs_common import FileOption, StoreOption, opened_store, resolved_run
from fedserver.saying import say
from telemetry.exporters.comparison import differences, read_export
from telemetry.progress import counted
from telemetry.store import Store
from telemetry.verify import Verification, verify_run

EXIT_DIFFERS: Final = 1
MAX_TOLD: Final = 20
"""Differences that are told of one run; of more, how many they are."""


def verify(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Id, its beginning (4 or more), name, or 'latest'."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run in the store.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="A run's JSON export, to be held against the store."
        ),
    ] = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Recompute a run's seal, evidence, sums and totals from what is stored.

    A JSON export cannot be verified without the store: it leaves out what connections and machines
    are called, which the seal covers.

    Exit code 0 if nothing differs (what could not be verified is named), 1 if anything does.
    """
    if [run is not None, every, file is not None].count(True) != 1:
        text = "name one run, or give --all, or --json and a file"
        raise ConfigError([Problem(path="RUN", text=text, source="")])
    export = None if file is None else _read(file)
    in_file: list[str] = []
    with opened_store(store, config) as opened:
        wanted = _wanted(opened, run if export is None else export["run_id"])
        with progress("verify", len(wanted), "runs") as tell:
            found = [verify_run(opened, run_id) for run_id in counted(wanted, tell)]
        if not found:
            say(f"no runs in {opened.url}")
        if export is not None:
            in_file = list(differences(opened, export))
    for verification in found:
        for line in told(verification):
            say(line)
    if export is not None:
        say(f"{file}: {'as the store has it' if not in_file else 'not what the store has'}")
        for line in _some(in_file):
            say(f"  {line}")
    if in_file or not all(verification.ok for verification in found):
        raise typer.Exit(EXIT_DIFFERS)


def _read(file: Path) -> dict[str, Any]:
    try:
        return read_export(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = f"cannot read {file}: {error}"
        raise ConfigError([Problem(path="--json", text=text, source="")]) from error


def _some(lines: Sequence[str]) -> list[str]:
    """The first of them, and how many more there are."""
    more = len(lines) - MAX_TOLD
    return [*lines[:MAX_TOLD], *([f"and {more} more"] if more > 0 else [])]


def _wanted(store: Store, run: str | None) -> list[str]:
    """Ids of the runs that are meant."""
    try:
        if run is not None:
            return [resolved_run(store, run).run_id]
        return [stored.run_id for stored in store.runs()]
    except ValueError as error:
        # A run that cannot be read keeps the others from being listed: its id still leads to it.
        if run is not None:
            return [run]
        text = f"a run in {store.url} cannot be read; verify runs one by one, by their whole ids"
        raise ConfigError([Problem(path="--all", text=text, source="")]) from error


def told(found: Verification) -> list[str]:
    """What is said of one run."""
    what = f"{found.rounds} closed round{'' if found.rounds == 1 else 's'}"
    if found.ok:
        seal = f", seal {found.sha256}" if found.sha256 else ""
        lines = [f"run {found.run_id}: OK, {what}{seal}"]
    else:
        number = len(found.differences)
        lines = [f"run {found.run_id}: {number} difference{'' if number == 1 else 's'} in {what}"]
        lines += [f"  {line}" for line in _some([str(item) for item in found.differences])]
        if {difference.figure for difference in found.differences} == {"sha256"}:
            lines.append(
                "  the seal alone differs: a fact of the run, its end, or something of a round that "
                "no sum depends on was changed"
            )
    return [*lines, *(f"  not verified: {text}" for text in found.unverified)]
