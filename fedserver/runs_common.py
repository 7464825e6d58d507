"""What the commands of ``fedserver runs`` share: which store, which run, and how times are told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from fedserver.errors import ConfigError, Problem
from fedserver.saying import InertConsole, say
from telemetry.domain import StoredRun
from telemetry.exporters.base import Format, Notes
from telemetry.progress import Tell, nobody
from telemetry.selection import resolve_run
from telemetry.store import Store, open_store

if TYPE_CHECKING:
    from fedserver.config import ServerConfig

DATABASE_VARIABLE: Final = "FEDSERVER_TELEMETRY__DATABASE_URL"

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Id, its beginning (4 or more), name, or 'latest'.")
]
StoreOption = Annotated[
    str | None, typer.Option("--store", help="Store URL, e.g. sqlite:///telemetry.db.")
]
FileOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take the store from this configuration.")
]


def local_time(moment: datetime) -> str:
    """Local time with its offset, for people; everything stored is UTC."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %z}"


def console() -> Console:
    """Where tables are printed."""
    return InertConsole()


@contextmanager
def opened_store(store: str | None, config: Path | None) -> Iterator[Store]:
    """The store that a command reads, closed afterwards."""
    opened = open_store(store_url(store, config), create=False)
    try:
        yield opened
    finally:
        opened.close()


def store_url(store: str | None, config: Path | None) -> str:
    """``--store`` > environment > ``-c FILE`` > ./server.yaml > sqlite:///telemetry.db."""
    if store is not None:
        return store
    if DATABASE_VARIABLE in os.environ:
        return os.environ[DATABASE_VARIABLE]
    found = _configured(config)
    return "sqlite:///telemetry.db" if found is None else found.telemetry.database_url


def output_dir(config: Path | None) -> Path:
    """Where a server of this configuration (or of none) writes what a run leaves behind."""
    found = _configured(config)
    return Path("runs") if found is None else found.model.output_dir


def _configured(config: Path | None) -> ServerConfig | None:
    """``-c FILE``, else ./server.yaml; None where there is neither."""
    from fedserver.config import load_config

    file = config or Path("server.yaml")
    if config is None and not file.exists():
        return None
    return load_config(file, {}, {}).config


def resolved_run(store: Store, wanted: str) -> StoredRun:
    """The run that RUN means; says on stderr which one ``latest`` is."""
    run = resolve_run(store, wanted)
    if wanted == "latest":
        say(f"latest is {run.run_id} ({run.info.run_name})", err=True)
    return run


def saved(form: Format, store: Store, run_id: str, output: Path, tell: Tell = nobody) -> Notes:
    """Write a run to a file of the user's choice."""
    try:
        return form.save(store, run_id, output, tell)
    except OSError as error:
        text = f"cannot write {output}: {error.strerror or error}"
        raise ConfigError([Problem(path="--output", text=text, source="")]) from error
