"""``fedserver telemetry tokens import``: let tokens in that a deployment drew by itself.

A deployment makes its secrets before its services (``make env``), so the tokens of the service must
be taken from there. Doing it again changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fedserver.errors import ConfigError, Problem
from fedserver.runs_common import FileOption, StoreOption, store_url
from telemetry.domain import utc_now
from telemetry.errors import BadTokenFact
from telemetry.store import Store, open_store
from telemetry.store.api_tokens import ApiToken, given_token


def import_tokens(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]", help="A line is LABEL SCOPE[,SCOPE] TOKEN; # is a comment."
        ),
    ] = None,
    variable: Annotated[
        str | None,
        typer.Option("--variable", metavar="NAME", help="An environment variable with such lines."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Revoke another token of the same label.")
    ] = False,
    store: StoreOption = None,
    config: FileOption = None,
) -> None:
    """Take tokens from a file or a variable: all of them, or none where a line is wrong.

    Only their hashes are kept. A token that is there already stays as it is.
    """
    text, where = _source(file, variable)
    wanted = list(read_lines(text, where, utc_now()))
    if not wanted:
        raise ConfigError([Problem(where, "holds no token", "")])
    opened = open_store(store_url(store, config))
    try:
        for line in take_in(opened, wanted, utc_now(), replace=replace):
            typer.echo(line)
    finally:
        opened.close()


def read_lines(text: str, where: str, now: datetime) -> Iterator[ApiToken]:
    """The tokens of a text. Raises `ConfigError` naming the line that is wrong, never its token."""
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"{where}:{number}"
        if len(words) != 3:
            problem = "is not LABEL SCOPE[,SCOPE] TOKEN, e.g. prometheus read flt_…"
            raise ConfigError([Problem(place, problem, "")])
        label, scopes, token = words
        try:
            facts = given_token(token, label, scopes.split(","), now)
        except BadTokenFact as error:
            raise ConfigError([Problem(place, str(error), "")]) from error
        if {label, facts.sha256} & seen:
            raise ConfigError([Problem(place, f"label or token of {label} stands twice", "")])
        seen |= {label, facts.sha256}
        yield facts


@dataclass(frozen=True, slots=True)
class _Step:
    token: ApiToken
    there: bool
    replaces: bool


def take_in(
    store: Store, wanted: Sequence[ApiToken], now: datetime, *, replace: bool
) -> Iterator[str]:
    """Store what is missing; a line of text for each. Raises `BadTokenFact` before any change."""
    known = store.api_tokens()
    steps = [_step(token, known, now, replace=replace) for token in wanted]
    for step in steps:
        if step.there:
            yield f"{step.token.label}: is there already"
            continue
        if step.replaces:
            store.revoke_token(step.token.label, now)
        store.add_token(step.token)
        scopes = ", ".join(sorted(step.token.scopes))
        more = ", in place of the token before, which is revoked" if step.replaces else ""
        yield f"{step.token.label}: taken in ({scopes}){more}"


def _step(token: ApiToken, known: Sequence[ApiToken], now: datetime, *, replace: bool) -> _Step:
    for stored in known:
        if stored.sha256 != token.sha256:
            continue
        if stored.state(now) != "valid":
            raise BadTokenFact(f"the token of {token.label} is {stored.state(now)}: draw a new one")
        if (stored.label, stored.scopes) != (token.label, token.scopes):
            scopes = ", ".join(sorted(stored.scopes))
            raise BadTokenFact(
                f"the token of {token.label} is there as {stored.label} ({scopes}): draw a new one"
            )
        return _Step(token, there=True, replaces=False)
    other = any(stored.label == token.label and stored.revoked_at is None for stored in known)
    if other and not replace:
        raise BadTokenFact(
            f"there is another token labelled {token.label}: revoke it first, or --replace"
        )
    return _Step(token, there=False, replaces=other)


def _source(file: Path | None, variable: str | None) -> tuple[str, str]:
    """The text, and what to call it."""
    if (file is None) == (variable is None):
        raise ConfigError([Problem("", "name a FILE, or a variable with --variable NAME", "")])
    if variable is not None:
        text = os.environ.get(variable)
        if text is None:
            raise ConfigError([Problem("--variable", f"{variable} is not set", "")])
        return text, variable
    assert file is not None
    try:
        return file.read_text(encoding="utf-8"), str(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Problem("FILE", f"cannot read {file}: {error}", "")]) from error
