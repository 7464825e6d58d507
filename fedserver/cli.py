"""The command line: ``fedserver …``.

Exit codes: 0 completed, 1 the run failed, 2 wrong configuration or wrong use, 130 and 143 signals.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported; off everywhere

import typer

from fedserver.dashboards_cli import dashboards
from fedserver.errors import ConfigError, Problem
from fedserver.runs_cli import runs
from fedserver.settings import from_pairs
from fedserver.strategies_cli import strategies
from fedserver.telemetry_cli import telemetry
from fedserver.terminal.signs import visible
from fedserver.tokens_cli import tokens
from telemetry.errors import TelemetryError

EXIT_WRONG: Final = 2
DEFAULT_FILE: Final = Path("server.yaml")

app = typer.Typer(
    name="fedserver",
    help="A federated-learning server that knows its carbon footprint.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runs, name="runs")
app.command()(strategies)
app.add_typer(tokens, name="tokens")
app.add_typer(telemetry, name="telemetry")
app.add_typer(dashboards, name="dashboards")

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="The configuration file (default: ./server.yaml if there)."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A single value, e.g. --set rounds=3; may be repeated."),
]
LiveOption = Annotated[
    bool | None,
    typer.Option(
        "--live/--plain",
        help="A live display, or plain lines (default: live on a terminal, plain in CI).",
    ),
]


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = DEFAULT_FILE,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented server.yaml with every option and its default."""
    from fedserver.templates import server_yaml

    if path.exists() and not force:
        raise ConfigError(
            [Problem(path="", text=f"{path} exists; --force overwrites it", source="")]
        )
    try:
        path.write_text(server_yaml(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            [Problem(path="", text=f"cannot write {path}: {error}", source="")]
        ) from error
    typer.echo(f"wrote {path}; start with: fedserver run -c {path}")


@app.command()
def run(
    config: ConfigFile = None,
    settings: Settings = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            help="Go on with a run that ended before its time, by id, its beginning, name or 'latest'.",
        ),
    ] = None,
    live: LiveOption = None,
) -> None:
    """Train as configured, and record the footprint."""
    from fedserver.config import load_config
    from fedserver.logs import set_up_logging
    from fedserver.running import run_server
    from fedserver.terminal.at_end import table_and_log
    from fedserver.terminal.choosing import chosen
    from telemetry.garbage import leave_what_is_there

    display = chosen(set_up_logging(), live, os.environ)
    loaded = load_config(_file(config), os.environ, from_pairs(settings))
    for note in loaded.notes:
        logging.getLogger("fedserver").warning("%s", note)
    on_ended = None if display is None else table_and_log(display.console)
    outcome = run_server(
        loaded.config,
        resume=resume,
        display=display,
        on_ready=lambda *_: leave_what_is_there(),
        on_ended=on_ended,
    )
    raise typer.Exit(outcome.exit_code)


@app.command("check-config")
def check_config(config: ConfigFile = None, settings: Settings = None) -> None:
    """Check the configuration and print every value with its source."""
    from fedserver.config import describe, load_config

    loaded = load_config(_file(config), os.environ, from_pairs(settings))
    for line in describe(loaded):
        typer.echo(line)


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Where database, footprint and model are kept.")
    ] = Path("demo"),
    port: Annotated[int, typer.Option("--metrics-port", help="0 takes a free one.")] = 9464,
    linger: Annotated[
        float, typer.Option("--linger", help="Seconds that /metrics stays up.")
    ] = 15.0,
    country: Annotated[str, typer.Option("--country", help="ISO 3166 alpha-3 code.")] = "ESP",
    live: LiveOption = None,
) -> None:
    """Train a model here and now: one server, three clients, real footprint."""
    from fedserver.demo.show import show
    from fedserver.logs import set_up_logging
    from fedserver.terminal.choosing import chosen

    display = chosen(set_up_logging(sys.stdout), live, os.environ)
    code = show(folder, port=port, linger_s=linger, country=country, display=display)
    raise typer.Exit(code)


def _file(given: Path | None) -> Path | None:
    if given is not None:
        return given
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of ``fedserver``: a user's mistake is a message, never a traceback."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="fedserver")
    except TelemetryError as error:
        print(f"error: {visible(str(error))}", file=sys.stderr)  # noqa: T201 - the command line
        sys.exit(EXIT_WRONG)


if __name__ == "__main__":
    main()
