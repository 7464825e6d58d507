"""``fedserver dashboards …``: our dashboards in a Grafana that exists already.

Exit codes: 0 Grafana has all of it, 1 something is missing or could not be done, 2 wrong use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from fedserver.dashboards.files import load_dashboards
from fedserver.dashboards.grafana import Grafana
from fedserver.dashboards.items import POSTGRES_UID, PROMETHEUS_UID, DataSource
from fedserver.dashboards.marks import marks_of
from fedserver.dashboards.sources import postgres_source, prometheus_source
from fedserver.dashboards.steps import Outcome, walk, walk_boards
from fedserver.errors import ConfigError, GrafanaAway, GrafanaRefused, Problem
from fedserver.runs_common import DATABASE_VARIABLE, FileOption, StoreOption, opened_store
from fedserver.saying import say
from telemetry.domain import StoredRun

EXIT_LEFT: Final = 1
TOKEN_VARIABLE: Final = "GRAFANA_TOKEN"  # noqa: S105 a name
URL_VARIABLE: Final = "GRAFANA_URL"
_MOST_DIFFERENCES: Final = 5

dashboards = typer.Typer(
    help="Bring the dashboards into an existing Grafana, or look whether they are there.",
    no_args_is_help=True,
)

UrlOption = Annotated[
    str | None, typer.Option("--url", help=f"Grafana's address (or {URL_VARIABLE}).")
]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help=f"Token of a service account; better --token-file or {TOKEN_VARIABLE}, which no list of "
        "processes shows.",
    ),
]
TokenFileOption = Annotated[
    Path | None, typer.Option("--token-file", help="File that holds the token.")
]
PrometheusOption = Annotated[
    str | None,
    typer.Option(
        "--prometheus-url",
        help=f"Keep a data source {PROMETHEUS_UID}: Prometheus as Grafana sees it.",
    ),
]
PostgresOption = Annotated[
    str | None,
    typer.Option(
        "--postgres-url",
        help=f"Keep a data source {POSTGRES_UID}, e.g. "
        "postgresql://grafana_reader@db.example.org/telemetry?sslmode=require.",
    ),
]
PasswordOption = Annotated[
    str | None,
    typer.Option(
        "--postgres-password-variable",
        metavar="NAME",
        help="Environment variable with its password.",
    ),
]
RunsOption = Annotated[
    int, typer.Option("--runs", min=0, max=5000, help="Mark so many of the newest runs.")
]


@dashboards.command()
def push(
    url: UrlOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    prometheus_url: PrometheusOption = None,
    postgres_url: PostgresOption = None,
    postgres_password: PasswordOption = None,
    renew_password: Annotated[
        bool, typer.Option("--renew-password", help="Send the password although one is set.")
    ] = False,
    runs: RunsOption = 200,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Bring data sources, folder, dashboards and one mark a run into Grafana. Twice changes nothing.

    Runs are marked where their store is named (--store, -c or the environment).
    """
    grafana = _grafana(url, token, token_file)
    wanted = _sources(prometheus_url, postgres_url, postgres_password, renew=renew_password)
    done = _each(grafana, wanted, _runs(runs, store, config), apply=True)
    told = ", ".join(
        f"{count} {what}" for what, count in sorted(done.items()) if what != "unchanged"
    )
    typer.echo(told or "nothing was changed")
    if done["failed"]:
        raise typer.Exit(EXIT_LEFT)


@dashboards.command()
def check(
    url: UrlOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    prometheus_url: PrometheusOption = None,
    postgres_url: PostgresOption = None,
    runs: RunsOption = 200,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Say what Grafana lacks or has otherwise, and change nothing; exit code 1 if there is anything."""
    grafana = _grafana(url, token, token_file)
    wanted = _sources(prometheus_url, postgres_url, None)
    found = _each(grafana, wanted, _runs(runs, store, config), apply=False)
    if set(found) - {"unchanged"}:
        raise typer.Exit(EXIT_LEFT)
    typer.echo("Grafana has all of it")


# --- telling --------------------------------------------------------------------------------------


def _each(
    grafana: Grafana,
    sources: Sequence[DataSource],
    runs: Sequence[StoredRun],
    *,
    apply: bool,
) -> Counter[str]:
    """Everything in its order: what became of how many pieces."""
    files = load_dashboards()
    try:
        typer.echo(f"{grafana.url}: Grafana {grafana.version()}")
        counted = _told(walk_boards(grafana, sources, files, apply=apply))
        marked = _told(walk(grafana, marks_of(grafana, runs), apply=apply), brief=True)
    except (GrafanaAway, GrafanaRefused) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_LEFT) from error
    if marked["unchanged"]:
        typer.echo(f"annotations of {marked['unchanged']} run(s): unchanged")
    return counted + marked


def _told(outcomes: Iterable[Outcome], *, brief: bool = False) -> Counter[str]:
    """A line for each, as it happens; ``brief`` passes over what is unchanged."""
    counted: Counter[str] = Counter()
    for outcome in outcomes:
        counted[outcome.what] += 1
        if outcome.what in ("failed", "not tried"):
            say(f"{outcome.name}: {outcome.what}: {outcome.why[0]}", err=True)
            continue
        if not (brief and outcome.what == "unchanged"):
            say(f"{outcome.name}: {outcome.what}")
        for line in outcome.why[:_MOST_DIFFERENCES]:
            say(f"  {line}")
        if len(outcome.why) > _MOST_DIFFERENCES:
            typer.echo(f"  and {len(outcome.why) - _MOST_DIFFERENCES} more")
    return counted


# --- what was asked for ---------------------------------------------------------------------------


def _grafana(url: str | None, token: str | None, token_file: Path | None) -> Grafana:
    from fedserver.checks import is_loopback

    address = url or os.environ.get(URL_VARIABLE)
    if not address:
        raise _wrong("--url", f"is not given, and {URL_VARIABLE} is not set")
    grafana = Grafana(address, _token(token, token_file))
    parts = urlsplit(address)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        typer.echo(
            f"warning: {address} is not encrypted: who is on the way reads the token", err=True
        )
    return grafana


def _token(given: str | None, file: Path | None) -> str:
    """--token, else --token-file, else the environment. The text of an error never holds it."""
    if given is not None and file is not None:
        raise _wrong("--token", "and --token-file: give one of them")
    where, token = "--token", given
    if file is not None:
        where = "--token-file"
        try:
            token = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no text"
            raise _wrong(where, f"cannot read {file}: {reason}") from error
    elif given is None:
        where, token = TOKEN_VARIABLE, os.environ.get(TOKEN_VARIABLE)
    if token is None:
        raise _wrong("--token", f"is not given; choices: --token-file, {TOKEN_VARIABLE}, --token")
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise _wrong(where, "is no token: letters, digits and signs without spaces")
    return token


def _sources(
    prometheus: str | None, postgres: str | None, variable: str | None, *, renew: bool = False
) -> list[DataSource]:
    if postgres is None and (variable is not None or renew):
        raise _wrong("--postgres-url", "is not given, so there is nothing to set a password for")
    password = None
    if variable is not None:
        password = os.environ.get(variable, "")
        if not password:
            raise _wrong("--postgres-password-variable", f"{variable[:64]} is not set, or empty")
    found = [] if prometheus is None else [prometheus_source(prometheus)]
    if postgres is not None:
        found.append(postgres_source(postgres, password, renew=renew))
    return found


def _runs(most: int, store: str | None, config: Path | None) -> list[StoredRun]:
    """The newest runs, where a store is named."""
    if store is None and config is None and DATABASE_VARIABLE not in os.environ:
        typer.echo("runs are not marked: no store is named (--store or -c)", err=True)
        return []
    with opened_store(store, config) as opened:
        runs = sorted(opened.runs(), key=lambda run: run.info.started_at, reverse=True)
    if len(runs) > most:
        typer.echo(f"the {most} newest of {len(runs)} runs are marked (--runs)", err=True)
    return runs[:most]


def _wrong(path: str, text: str) -> ConfigError:
    return ConfigError([Problem(path=path, text=text, source="")])
