"""What is opened and checked before clients may come; whatever is wrong is a `ConfigError`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from flwr.app import ArrayRecord

from fedserver.config import ServerConfig
from fedserver.errors import ConfigError, Problem
from fedserver.model_io import ModelError, load_model
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import utc_now
from telemetry.errors import HttpAddressError, StoreError
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.lease import is_alive
from telemetry.service.app import create_app
from telemetry.service.server import EmbeddedHttp
from telemetry.store import Store, open_store

logger = logging.getLogger(__name__)

T = TypeVar("T")


def open_the_store(config: ServerConfig, stack: ExitStack) -> Store:
    """The store, closed with ``stack``; runs that a server left behind are marked as interrupted."""
    url = config.telemetry.database_url
    store = check(lambda: open_store(url), StoreError, "telemetry.database_url")
    stack.callback(store.close)
    gone = check(
        lambda: store.mark_interrupted(utc_now(), is_alive), StoreError, "telemetry.database_url"
    )
    for run_id in gone:
        logger.info("run %s was left by a server that is gone: marked as interrupted", run_id)
    return store


def initial_model(config: ServerConfig) -> ArrayRecord | None:
    """The model of ``model.initial``; None where a client is to be asked."""
    path = config.model.initial
    if path is None:
        return None
    return check(lambda: load_model(Path(path)), ModelError, "model.initial")


def check_output(folder: Path) -> None:
    """Make the folder for results, and write into it once."""

    def probe() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()

    check(probe, OSError, "model.output_dir")


def bind_http(config: ServerConfig, store: Store, recorder: RoundRecorder) -> EmbeddedHttp:
    """The server of ``/metrics``, which holds its port already."""
    http = config.telemetry.http
    collector = EmissionsCollector(
        store,
        recorder.owner,
        facts=recorder,
        max_runs=config.telemetry.metrics_runs,
        max_rounds=config.telemetry.metrics_rounds,
    )
    app = create_app(
        metrics_registry(collector),
        read_token=http.read_token(),
        bind_host=http.host,
        allowed_hosts=http.allowed_hosts,
    )
    return check(
        lambda: EmbeddedHttp(app, http.host, http.port), HttpAddressError, "telemetry.http.port"
    )


def check(action: Callable[[], T], error: type[Exception], path: str) -> T:
    """Do it; a failure before the start is a configuration error that names the key."""
    try:
        return action()
    except error as problem:
        raise ConfigError([Problem(path=path, text=str(problem), source="")]) from problem
