"""``fedserver telemetry prune``: let go of old runs, but of none that a service has yet to hear of."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.progress import progress
from fedserver.runs_common import FileOption, StoreOption, local_time, opened_store
from telemetry.domain import utc_now
from telemetry.store import Store, rules
from telemetry.store.sql.sqlite import copies_beside

_AGE: Final = re.compile(r"([1-9][0-9]{0,5})([hdw])")
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
"""No minutes: whoever writes `6m` means months, and would lose all that is older than six minutes."""


def prune(
    older_than: Annotated[
        str,
        typer.Option("--older-than", help="Of runs that ended so long ago: 180d, or 26w, 12h."),
    ],
    keep_totals: Annotated[
        bool,
        typer.Option(
            "--keep-totals", help="Delete rounds and rows of clients, keep runs and their totals."
        ),
    ] = False,
    undelivered: Annotated[
        bool,
        typer.Option(
            "--undelivered", help="Those, too, that the telemetry service has not acknowledged."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Delete old runs (their ids stay, as with `runs delete`), or only their rounds.

    A run of which a telemetry service has not acknowledged everything (the one
    that is configured here, or one that knows the run) is kept, and named. The
    ids of the others are printed.
    """
    now = utc_now()
    before = _before(older_than, now)
    services = _configured_service(config)
    with opened_store(store, config) as opened:
        waiting = () if undelivered else opened.unacknowledged(services)
        if not keep_totals and not yes:
            _ask(opened, before, spared=waiting)
        with progress("prune", unit="runs") as tell:
            pruned = opened.prune(before, now, tell, keep_totals=keep_totals, spared=waiting)
        kept = _old(opened, before, waiting)
        copies = [] if keep_totals else copies_beside(opened.url)
    for run_id in pruned:
        typer.echo(run_id)
    what = "pruned" if keep_totals else "deleted"
    typer.echo(f"{what} {len(pruned)} of the runs in {opened.url}", err=True)
    for run_id in kept:
        typer.echo(
            f"kept {run_id}: a telemetry service has not acknowledged all of it "
            "(fedserver telemetry flush delivers it, --undelivered prunes it all the same)",
            err=True,
        )
    for path in copies:
        typer.echo(f"not deleted, and may tell of them: {path}", err=True)


def _before(age: str, now: datetime) -> datetime:
    match = _AGE.fullmatch(age)
    if match is None:
        raise _wrong("--older-than", f"{age[:32]!r} is no age such as 180d, 26w or 12h")
    try:
        return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
    except OverflowError:
        raise _wrong("--older-than", f"{age} is before all times") from None


def _configured_service(config: Path | None) -> Sequence[str]:
    """Where a server of this configuration delivers to."""
    from fedserver.config import load_config

    file = config or (Path("server.yaml") if Path("server.yaml").exists() else None)
    url = load_config(file, os.environ, {}).config.telemetry.service_url
    return () if url is None else (url,)


def _ask(store: Store, before: datetime, spared: Sequence[str]) -> None:
    old = [run for run in store.runs() if rules.may_prune(run, before, keep_totals=False)]
    count = sum(run.run_id not in spared for run in old)
    if not count:
        return
    if not sys.stdin.isatty():
        text = "would delete whole runs, and there is nobody to ask: --yes, or --keep-totals"
        raise _wrong("telemetry prune", text)
    typer.confirm(
        f"delete {count} run(s) that ended before {local_time(before)} from {store.url}, with "
        "their totals? They cannot be brought back (--keep-totals keeps those)",
        abort=True,
    )


def _old(store: Store, before: datetime, run_ids: Sequence[str]) -> list[str]:
    """Those of the runs that would have been pruned."""
    ends = {run_id: store.run(run_id).ended_at for run_id in run_ids}
    return [
        run_id for run_id, ended_at in ends.items() if ended_at is not None and ended_at < before
    ]


def _wrong(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path=path, text=text, source="")])
