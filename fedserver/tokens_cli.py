"""``fedserver tokens …``: who may train along."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from fedserver.errors import ConfigError, Problem
from fedserver.tokens import TokenStore
from telemetry.domain import utc_now

tokens = typer.Typer(help="Create, list and revoke client tokens.", no_args_is_help=True)

STORE_VARIABLE: Final = "FEDSERVER_SERVER__TOKENS_STORE"
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,4})([mhdw])")

LabelOption = Annotated[str, typer.Option("--label", help="Whose it is, e.g. hospital-a.")]
LabelArgument = Annotated[str, typer.Argument(metavar="LABEL", help="Whose token.")]
ExpiresOption = Annotated[
    str | None,
    typer.Option("--expires", help="After 90m, 12h, 30d or 4w, or on 2030-12-31 (default: never)."),
]
StoreOption = Annotated[Path | None, typer.Option("--store", help="The file of tokens.")]
FileOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Take the file from this configuration.")
]


@tokens.command()
def create(
    label: LabelOption,
    expires: ExpiresOption = None,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Make a token and print it, once: only its hash is kept."""
    now = utc_now()
    expires_at = None if expires is None else expiry(expires, now)
    opened = _store(store, config)
    token = opened.create(label, now=now, expires_at=expires_at)
    typer.echo(token)
    until = "" if expires_at is None else f" until {_local(expires_at)}"
    typer.echo(f"for {label}{until}, in {opened.path}; it is not shown again", err=True)


@tokens.command("list")
def list_tokens(store: StoreOption = None, config: FileOption = None) -> None:
    """Every token's label, dates and state; never the token."""
    opened = _store(store, config)
    found = opened.stored()
    if not found:
        typer.echo(f"no tokens in {opened.path}")
        return
    table = Table(box=None, header_style="bold")
    for heading in ("label", "state", "created", "last used", "expires", "revoked"):
        table.add_column(heading, no_wrap=True)
    now = utc_now()
    for token in found:
        table.add_row(
            token.label,
            token.state(now),
            _local(token.created_at),
            _local(token.last_used_at, "never"),
            _local(token.expires_at, "never"),
            _local(token.revoked_at),
        )
    # A pipe has no width: do not break lines there.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@tokens.command()
def revoke(label: LabelArgument, store: StoreOption = None, config: FileOption = None) -> None:
    """Take a token back: running servers let its client go within a second."""
    opened = _store(store, config)
    opened.revoke(label, now=utc_now())
    typer.echo(f"revoked the token of {label}")


def expiry(text: str, now: datetime) -> datetime:
    """The moment that ``--expires`` means, in UTC; the end of the day for a date.

    Raises `ConfigError` for what is neither, or not in the future.
    """
    match = _DURATION.fullmatch(text)
    if match:
        return now + timedelta(**{_UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        problem = f"{text[:64]!r} is neither 90m, 12h, 30d or 4w nor a date such as 2030-12-31"
    else:
        if moment > now:
            return moment
        problem = f"{text} is over"
    raise ConfigError([Problem(path="--expires", text=problem, source="")])


def _local(moment: datetime | None, otherwise: str = "") -> str:
    return otherwise if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M %z}"


def _store(store: Path | None, config: Path | None) -> TokenStore:
    """``--store`` > environment > ``-c FILE`` > ./server.yaml > ./tokens.db."""
    if store is not None:
        return TokenStore(store)
    if STORE_VARIABLE in os.environ:
        return TokenStore(Path(os.environ[STORE_VARIABLE]))
    file = config or Path("server.yaml")
    if config is not None or file.exists():
        return TokenStore(tokens_store_of(file))
    return TokenStore(Path("tokens.db"))


def tokens_store_of(file: Path) -> Path:
    """``server.tokens_store`` of a configuration, whatever else in it is not right yet.

    Certificates, for one, often come after the tokens.
    """
    from fedserver.options import ServerSection
    from fedserver.sources import from_file

    section = from_file(file).values.get("server")
    value = section.get("tokens_store") if isinstance(section, dict) else None
    if isinstance(value, str) and value:
        return Path(value)
    return Path.cwd() / ServerSection().tokens_store
