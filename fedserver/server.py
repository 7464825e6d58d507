"""The FL server as the platform starts it: ``cd federated-server/fedserver; python3 server.py``.

It reads the variables that the deployment form sets (``FEDERATED_ROUNDS``, ``DP``, …: see
docs/platform.md), listens on port 5000 for clients and on port 6006 for ``/metrics``, and leaves
footprint, record and model in ``runs/``. ``-c``, ``--set`` and ``--resume`` are those of
``fedserver run``; a ``server.yaml`` beside it and ``FEDSERVER_…`` variables hold over the form.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

if not __package__:  # run as a file: this folder's modules must not hide others of their name
    _here = Path(__file__).resolve().parent
    sys.path[:] = [str(_here.parent), *(p for p in sys.path if Path(p or ".").resolve() != _here)]

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when flwr is imported; off everywhere

if TYPE_CHECKING:
    from fedserver.assemble import Server

SETTINGS: dict[str, object] = {}
"""Change an option here, e.g. ``{"rounds": 10, "emissions.country": "ESP"}``: it holds over the
form, a file and the environment. `fedserver init` writes a file with every option explained."""

TOKEN_VARIABLE: Final = "FEDERATED_READ_TOKEN"  # noqa: S105 - the name of the variable
EXIT_WRONG: Final = 2

logger = logging.getLogger("fedserver")


def serve(arguments: Sequence[str] | None = None) -> int:
    """Train as the platform says; the exit code. Raises `ConfigError` before a port opens."""
    from fedserver.config import load_config
    from fedserver.logs import set_up_logging
    from fedserver.running import run_server
    from fedserver.settings import from_pairs
    from fedserver.terminal.at_end import table_and_log
    from fedserver.terminal.choosing import chosen
    from telemetry.garbage import leave_what_is_there

    given = _parser().parse_args(arguments)
    display = chosen(set_up_logging(), given.live, os.environ)
    overrides = SETTINGS | from_pairs(given.set)
    file = given.config or (Path("server.yaml") if Path("server.yaml").exists() else None)
    token_file = keep_read_token(os.environ, Path.cwd())
    loaded = load_config(file, os.environ, overrides, on_platform=True)
    for note in loaded.notes:
        logger.warning("%s", note)

    def ready(server: Server, _: str) -> None:
        leave_what_is_there()
        for line in endpoints(os.environ, server.grid.address):
            logger.info("%s", line)
        if loaded.config.telemetry.http.read_token_file == token_file:
            logger.info("/metrics asks for the token in %s", token_file)

    on_ended = None if display is None else table_and_log(display.console)
    return run_server(
        loaded.config, resume=given.resume, display=display, on_ready=ready, on_ended=on_ended
    ).exit_code


def keep_read_token(environ: Mapping[str, str], directory: Path) -> Path | None:
    """The file with the token for ``/metrics``, readable by this user only; None if named elsewhere.

    `TOKEN_VARIABLE` decides the token; without it the one of before stays, else a new one is made.
    """
    from fedserver.auth import MIN_CHARACTERS
    from fedserver.errors import ConfigError, Problem
    from fedserver.platform_variables import READ_TOKEN_FILE

    if environ.get("FEDSERVER_TELEMETRY__HTTP__READ_TOKEN_FILE"):
        return None
    path = directory / READ_TOKEN_FILE
    token = environ.get(TOKEN_VARIABLE, "").strip()
    if token and (len(token) < MIN_CHARACTERS or any(c.isspace() for c in token)):
        text = f"must have {MIN_CHARACTERS} characters or more, and no space"
        raise ConfigError([Problem(TOKEN_VARIABLE, text, "the platform")])
    if token or not path.exists():
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(handle, 0o600)
                file.write(f"{token or secrets.token_urlsafe(32)}\n")
        except OSError as error:
            text = f"{path} cannot be written: {error.strerror}"
            raise ConfigError(
                [Problem("telemetry.http.read_token_file", text, "the platform")]
            ) from error
    return path


def endpoints(environ: Mapping[str, str], address: str) -> list[str]:
    """What to share with the clients, as far as it can be known from in here."""
    inside = environ.get("NOMAD_HOST_ADDR_fedserver", "")
    job = environ.get("NOMAD_JOB_ID", "")
    outside = f"fedserver-{job}" if job else "fedserver"
    lines = [
        f"clients outside the platform: the host of the endpoint {outside}… that the dashboard "
        "shows under Info, and port 443, with root certificates"
    ]
    if inside:
        lines.append(f"clients inside the platform: {inside}, in plain text")
    else:
        lines.append(f"clients that reach this machine directly: port {address.rpartition(':')[2]}")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="server.py", description="The platform's FL server.")
    parser.add_argument("-c", "--config", type=Path, help="a configuration file (./server.yaml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="path=value", help="a single value"
    )
    parser.add_argument("--resume", metavar="RUN", help="go on with a run that ended early")
    parser.add_argument("--live", action="store_true", default=None, help="a live display")
    parser.add_argument(
        "--plain", action="store_false", dest="live", help="plain lines, no display"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: a user's mistake is a message, never a traceback."""
    from telemetry.errors import TelemetryError

    try:
        sys.exit(serve(arguments))
    except TelemetryError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - this is a program
        sys.exit(EXIT_WRONG)


if __name__ == "__main__":
    main()
