"""``fedserver telemetry flush``: deliver what servers that have ended left in a store."""

from __future__ import annotations

import os
import random
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.progress import progress
from fedserver.runs_common import FileOption, StoreOption, opened_store, store_url
from telemetry.domain import utc_now
from telemetry.errors import ServiceAway
from telemetry.lease import is_alive
from telemetry.progress import Tell
from telemetry.writer import Failures

if TYPE_CHECKING:
    from telemetry.delivery import Delivery

EXIT_LEFT: Final = 1

UrlOption = Annotated[
    str | None,
    typer.Option("--service-url", help="Where to (default: telemetry.service_url)."),
]
TokenFileOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="File with a write token (default: as configured)."),
]
TimeoutOption = Annotated[
    float,
    typer.Option("--timeout", min=0.0, help="Seconds to go on trying a service that is away."),
]


def flush(
    store: StoreOption = None,
    service_url: UrlOption = None,
    token_file: TokenFileOption = None,
    timeout: TimeoutOption = 60.0,
    config: FileOption = None,
) -> None:
    """Deliver what the service has not acknowledged; exit code 1 if something is left.

    Runs of servers that are alive are left to them. The token comes from --token-file, else from
    FEDSERVER_TELEMETRY__SERVICE_TOKEN (or …_FILE), else from the configuration.
    """
    from fedserver.config import load_config
    from telemetry.delivery import Delivery
    from telemetry.service_client import ServiceClient

    overrides: dict[str, object] = {}
    if service_url is not None:
        overrides["telemetry.service_url"] = service_url
    if token_file is not None:
        overrides |= {
            "telemetry.service_token_file": str(token_file),
            "telemetry.service_token": None,
        }
    file = config or (Path("server.yaml") if Path("server.yaml").exists() else None)
    options = load_config(file, os.environ, overrides).config.telemetry
    if options.service_url is None:
        text = "is not set; choices: --service-url URL, FEDSERVER_TELEMETRY__SERVICE_URL, -c FILE"
        raise ConfigError([Problem("telemetry.service_url", text, "")])
    with ExitStack() as stack:
        found = stack.enter_context(opened_store(store, config))
        for run_id in found.mark_interrupted(utc_now(), is_alive):
            typer.echo(f"run {run_id} was left by a server that is gone: interrupted", err=True)
        client = ServiceClient(options.service_url, options.write_token())
        stack.callback(client.close)
        delivery = Delivery(found, client, None, Failures())
        before = delivery.backlog().rounds
        with progress("deliver", before, "rounds") as tell:
            problem = _deliver(delivery, time.monotonic() + timeout, before, tell)
        left = delivery.backlog()
        theirs = set(found.unacknowledged([options.service_url])) - delivery.run_ids()
    typer.echo(f"{before - left.rounds} round(s) delivered to {options.service_url}")
    if theirs:
        typer.echo(f"{len(theirs)} run(s) are left to servers that live", err=True)
    if problem is not None or left.oldest_at is not None:
        why = f": {problem}" if problem else ", not taken by the service (why stands above)"
        what = f"{left.rounds} round(s), or how a run ended, are left{why}"
        typer.echo(f"{what}; they stay in {store_url(store, config)}", err=True)
        raise typer.Exit(EXIT_LEFT)


def _deliver(delivery: Delivery, deadline: float, rounds: int, tell: Tell) -> str | None:
    """Deliver all there is; what was wrong when time ran out, None if nothing was."""
    from telemetry.sender import pause_s

    tries = 0
    while True:
        try:
            while delivery.once():
                tries = 0
                tell(rounds - delivery.backlog().rounds)
            return None
        except ServiceAway as error:
            tries += 1
            pause = pause_s(tries, error.retry_after_s, random.random)
            if time.monotonic() + pause > deadline:
                return str(error)
        time.sleep(pause)
