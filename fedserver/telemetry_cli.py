"""``fedserver telemetry``: what servers recorded, and the service that they report to."""

from __future__ import annotations

import typer

from fedserver.flush_cli import flush

telemetry = typer.Typer(help="The telemetry service, and what is delivered to it.")
telemetry.command()(flush)


@telemetry.callback()
def _group() -> None:
    """Keeps the names of the commands, however few there are."""
