"""What is opened and checked before clients may come; whatever is wrong is a `ConfigError`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

from flwr.app import ArrayRecord
from prometheus_client import Counter

from fedserver.config import ServerConfig
from fedserver.errors import ConfigError, Problem
from fedserver.gate import TokenGate
from fedserver.leftovers import deliver
from fedserver.model_io import ModelError, load_model
from fedserver.options import TlsFiles
from fedserver.tokens import TokenStore, TokenStoreError
from fedserver.tokens_file import TokenFile
from fedserver.transport import Certificates
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import utc_now
from telemetry.errors import HttpAddressError, StoreError
from telemetry.exporters.family import FamiliesCollector
from telemetry.exporters.process_families import STORE_FAMILIES
from telemetry.exporters.prometheus import EmissionsCollector, metrics_registry
from telemetry.lease import is_alive
from telemetry.sender import Sender, SendingFacts
from telemetry.service.app import create_app
from telemetry.service.server import EmbeddedHttp
from telemetry.service_client import ServiceClient
from telemetry.store import Store, open_store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_S: Final = 0.5
"""How long one write waits for another process's lock; the writer then tries again."""


def open_the_store(config: ServerConfig, stack: ExitStack, failures: Failures) -> Store:
    """The store, closed with ``stack``; runs that a server left behind are marked as interrupted.

    What goes wrong with rounds that such a server kept is noted in ``failures``.
    """
    url = config.telemetry.database_url
    store = check(
        lambda: open_store(url, busy_timeout_s=BUSY_S), StoreError, "telemetry.database_url"
    )
    stack.callback(store.close)
    deliver(config.model.output_dir, store, failures)
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


def gate_of(config: ServerConfig, refusals: Counter) -> TokenGate | None:
    """Who may connect; None where everybody may."""
    path = config.server.tokens_file
    if config.server.auth == "none":
        return None
    file = (
        None
        if path is None
        else check(lambda: TokenFile(path), TokenStoreError, "server.tokens_file")
    )
    gate = TokenGate(TokenStore(config.server.tokens_store), file, refused=refusals.inc)
    now = utc_now()
    tokens = check(gate.tokens, TokenStoreError, "server.tokens_store")
    valid = sum(token.problem(now) is None for token in tokens)
    if valid:
        logger.info("clients need a token; %d hold", valid)
    else:
        logger.warning(
            "clients need a token and there is none: fedserver tokens create --label NAME --store %s",
            config.server.tokens_store,
        )
    return gate


def certificates_of(config: ServerConfig) -> Certificates | None:
    """What the port needs for TLS; None where it speaks plain HTTP/2."""
    if not isinstance(config.server.tls, TlsFiles):
        return None
    from fedserver import tls  # cryptography is loaded only where it is needed

    files = config.server.tls
    loaded = check(lambda: tls.load(files, utc_now()), tls.TlsError, "server.tls")
    if (loaded.expires_at - utc_now()).days < tls.WARN_DAYS:
        logger.warning("%s expires on %s", files.certificate, f"{loaded.expires_at:%Y-%m-%d}")
    return loaded.authority, loaded.certificate, loaded.key


def sender_of(config: ServerConfig, store: Store, recorder: RoundRecorder) -> Sender | None:
    """Who delivers to the service, not yet started; None where there is no service."""
    url = config.telemetry.service_url
    if url is None:
        return None
    client = ServiceClient(url, config.telemetry.write_token())
    return Sender(store, client, recorder.owner, recorder.failures)


def bind_http(
    config: ServerConfig,
    store: Store,
    recorder: RoundRecorder,
    refusals: Counter | None = None,
    *,
    sender: Sender | None = None,
) -> EmbeddedHttp:
    """The server of ``/metrics`` and the page, which holds its port already.

    Where a sender delivers the runs, the service shows their metrics.
    """
    http = config.telemetry.http
    collector = EmissionsCollector(
        store,
        recorder.owner,
        facts=recorder if sender is None else SendingFacts(recorder, sender),
        serves_runs=sender is None,
        max_runs=config.telemetry.metrics_runs,
        max_rounds=config.telemetry.metrics_rounds,
        max_series=config.telemetry.max_series,
    )
    registry = metrics_registry(collector)
    registry.register(FamiliesCollector(STORE_FAMILIES, recorder.writes))
    app = create_app(
        registry,
        read_token=http.read_token(),
        bind_host=http.host,
        allowed_hosts=http.allowed_hosts,
        auth_failures=refusals,
        store=store,
        owner=recorder.owner,
    )
    return check(
        lambda: EmbeddedHttp(app, http.host, http.port, failures=recorder.failures),
        HttpAddressError,
        "telemetry.http.port",
    )


def check(action: Callable[[], T], error: type[Exception], path: str) -> T:
    """Do it; a failure before the start is a configuration error that names the key."""
    try:
        return action()
    except error as problem:
        raise ConfigError([Problem(path=path, text=str(problem), source="")]) from problem
