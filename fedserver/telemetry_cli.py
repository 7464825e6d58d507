"""``fedserver telemetry …``: the service that FL servers deliver to, its tokens and its database."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.table import Table

from fedserver.errors import ConfigError, Problem
from fedserver.flush_cli import flush
from fedserver.progress import progress
from fedserver.prune_cli import prune
from fedserver.runs_common import FileOption, StoreOption, console, local_time, store_url
from fedserver.tokens_cli import expiry
from fedserver.tokens_import import import_tokens
from telemetry.domain import utc_now
from telemetry.store import open_store

telemetry = typer.Typer(
    help="Serve telemetry to many FL servers; tokens, migrations, pruning.", no_args_is_help=True
)
tokens = typer.Typer(help="Create, list and revoke tokens of the service.", no_args_is_help=True)
telemetry.add_typer(tokens, name="tokens")
telemetry.command()(flush)
telemetry.command()(prune)
tokens.command("import")(import_tokens)


@telemetry.command()
def serve(
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 9464,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A further name to answer to; may be repeated."),
    ] = None,
    open_metrics: Annotated[
        bool, typer.Option("--open-metrics", help="Let everybody read /metrics.")
    ] = False,
    requests_per_s: Annotated[
        float, typer.Option("--requests-per-s", min=1, help="Of each token.")
    ] = 500,
    metrics_runs: Annotated[
        int, typer.Option("--metrics-runs", min=0, help="Ended runs on /metrics, the last ones.")
    ] = 20,
    metrics_rounds: Annotated[
        int, typer.Option("--metrics-rounds", min=0, help="Rounds of each on /metrics, the last.")
    ] = 200,
    max_series: Annotated[
        int,
        typer.Option(
            "--max-series",
            min=1,
            help="Most series of runs on /metrics: above it the oldest ended runs go, then rounds.",
        ),
    ] = 50_000,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Take in what FL servers deliver, and show it: HTTP API, page and /metrics."""
    from telemetry.service.service import create_service
    from telemetry.service.standalone import log_as_json, serve

    log_as_json()
    opened = open_store(store_url(store, config))
    try:
        app = create_service(
            opened,
            bind_host=host,
            allowed_hosts=allowed_host or (),
            open_metrics=open_metrics,
            requests_per_s=requests_per_s,
            metrics_runs=metrics_runs,
            metrics_rounds=metrics_rounds,
            max_series=max_series,
        )
        serve(app, host, port, said=lambda address: typer.echo(f"listening on http://{address}"))
    finally:
        opened.close()


@tokens.command("create")
def create_token(
    label: Annotated[str, typer.Option("--label", help="Whose it is, e.g. site-a.")],
    scope: Annotated[
        list[str], typer.Option("--scope", help="write, read or admin; may be repeated.")
    ],
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="After 90m, 12h, 30d or 4w, or on 2030-12-31."),
    ] = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    from telemetry.store.api_tokens import new_token

    now = utc_now()
    token, facts = new_token(label, scope, now, None if expires is None else expiry(expires, now))
    opened = open_store(store_url(store, config))
    try:
        opened.add_token(facts)
    finally:
        opened.close()
    typer.echo(token)
    typer.echo(
        f"for {label} ({', '.join(sorted(facts.scopes))}), in {opened.url}; it is not shown again",
        err=True,
    )


@tokens.command("list")
def list_tokens(store: StoreOption = None, config: FileOption = None) -> None:
    """Every token's label, scopes, dates and state; never the token."""
    opened = open_store(store_url(store, config), create=False)
    try:
        found = opened.api_tokens()
    finally:
        opened.close()
    if not found:
        typer.echo(f"no tokens in {opened.url}")
        return
    table = Table(box=None, header_style="bold")
    for heading in ("label", "scopes", "state", "created", "expires", "revoked"):
        table.add_column(heading, no_wrap=True)
    now = utc_now()
    for token in found:
        table.add_row(
            token.label,
            " ".join(sorted(token.scopes)),
            token.state(now),
            local_time(token.created_at),
            "never" if token.expires_at is None else local_time(token.expires_at),
            "" if token.revoked_at is None else local_time(token.revoked_at),
        )
    console().print(table)


@tokens.command("revoke")
def revoke_token(
    label: Annotated[str, typer.Argument(metavar="LABEL", help="Whose token.")],
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Take a token back: running services refuse it within a second or two."""
    opened = open_store(store_url(store, config), create=False)
    try:
        opened.revoke_token(label, utc_now())
    finally:
        opened.close()
    typer.echo(f"revoked the token of {label}")


@telemetry.command()
def migrate(
    action: Annotated[
        str, typer.Argument(help="up: to the newest schema; check: is it; history: all of them.")
    ] = "up",
    reader: Annotated[
        str | None,
        typer.Option("--reader", metavar="ROLE", help="Let this PostgreSQL role read the views."),
    ] = None,
    reader_password: Annotated[
        str | None,
        typer.Option(
            "--reader-password-variable",
            metavar="NAME",
            help="Let that role log in, with the password in this environment variable.",
        ),
    ] = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Bring the database's schema up to date, or say where it stands (check: exit 1 if it is not)."""
    from telemetry.store.sql import migrating
    from telemetry.store.sql.schema import State

    if action not in ("up", "check", "history"):
        raise _wrong("action", f"{action[:32]!r} is not known; choose up, check or history")
    if reader is not None and action != "up":
        raise _wrong("--reader", f"goes with up, not with {action}")
    if reader_password is not None and reader is None:
        raise _wrong("--reader-password-variable", "goes with --reader ROLE")
    password = None if reader_password is None else _password(reader_password)
    url = store_url(store, config)
    if url.partition(":")[0] not in ("postgresql", "sqlite"):
        raise _wrong("--store", "only postgresql:// and sqlite:/// have a schema")
    if action == "up":
        with progress("migrate", unit="revisions") as tell:
            before, now = migrating.upgrade(url, tell=tell)
        shown = migrating.facts(url).url
        told = "is up to date" if before == now else f"upgraded from {before or 'nothing'}"
        typer.echo(f"{shown}: schema {now}, {told}")
        if reader is not None:
            migrating.grant_reading(url, reader, password)
            login = "" if password is None else ", and log in with its password"
            typer.echo(f"{shown}: {reader} may read the views{login}")
        return
    found = migrating.facts(url)
    if action == "check":
        typer.echo(f"{found.url}: schema {found.revision or '-'}, {found.state.value}")
        raise typer.Exit(0 if found.state is State.CURRENT else 1)
    for revision, text in migrating.history():
        here = "  <- here" if revision == found.revision else ""
        typer.echo(f"{revision}  {text}{here}")


def _password(variable: str) -> str:
    password = os.environ.get(variable, "")
    if not password:
        raise _wrong("--reader-password-variable", f"{variable[:64]} is not set, or empty")
    return password


def _wrong(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path=path, text=text, source="")])
