"""What is to be shared at the start, and what stays in the end."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedserver.config import load_config
from fedserver.rounds_table import rounds_table
from fedserver.server import _parser
from fedserver.terminal.at_end import MOST_ROUNDS, print_rounds
from fedserver.terminal.facts import endpoint
from telemetry.store.memory import InMemoryStore
from telemetry.testing import OWNER, RUN_ID, START, make_round, make_run


def config(**overrides: Any) -> Any:
    """A server's configuration."""
    values = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_config(None, {}, values).config


def test_what_clients_need_stands_beside_the_address(tmp_path: Path) -> None:
    """TLS and a token, where they are asked for."""
    assert endpoint(config(), "127.0.0.1:5000") == "127.0.0.1:5000"
    tokens = config(server__auth="tokens", server__tokens_store=str(tmp_path / "tokens.db"))
    assert endpoint(tokens, "10.0.0.7:5000") == "10.0.0.7:5000  (with a token)"
    behind = config(server__tls="terminated-by-proxy")
    assert endpoint(behind, "127.0.0.1:5000") == "127.0.0.1:5000  (with TLS)"


@pytest.mark.parametrize("address", ["0.0.0.0:5000", "[::]:5000"])
def test_an_address_that_is_everywhere_is_no_address_to_share(address: str) -> None:
    """Nobody can connect to 0.0.0.0 from elsewhere."""
    told = endpoint(config(), address)
    assert told == f"port 5000 of this machine, {socket.gethostname()}"


def stored(rounds: int) -> InMemoryStore:
    """A run of so many rounds after the set-up."""
    store = InMemoryStore()
    store.start_run(make_run(metric_names=("accuracy", "f1", "loss")), OWNER, START)
    for number in range(rounds + 1):
        metrics = {"accuracy": 0.5, "f1": 0.4, "loss": 0.125} if number else {}
        record = make_round(number, clients={"a": 0.001, "b": "failed"}, evaluate_metrics=metrics)
        store.record_round(record)
    return store


def printed(width: int, rounds: int = 2) -> str:
    """What stays on a terminal of that width."""
    out = io.StringIO()
    print_rounds(Console(file=out, width=width), RUN_ID, stored(rounds))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 70, 80, 100, 140])
def test_the_table_fits_and_keeps_what_matters(width: int) -> None:
    """Column by column, the least of them first; no heading and no figure is broken."""
    lines = [line for line in printed(width).splitlines() if line.strip()]
    assert len(lines) == 4
    assert max(map(len, lines)) <= width
    heading = " ".join(lines[0].split())
    assert heading.startswith("round")
    for always in ("s", "accuracy", "total g", "clients"):
        assert f" {always}" in heading
    assert ("cumulative g" in heading) == (width >= 100)
    assert ("loss" in heading) == (width == 140)


def test_without_a_width_every_column_is_there() -> None:
    """As in a pipe."""
    rounds = list(stored(1).rounds(RUN_ID))
    headings = [str(column.header) for column in rounds_table(rounds, ("accuracy", "loss")).columns]
    assert headings == [
        "round", "status", "s", "accuracy", "loss", "server g", "clients g", "total g",
        "cumulative g", "clients", "reported",
    ]  # fmt: skip


def test_of_many_rounds_the_last_stay() -> None:
    """And how many there are is said: a thousand lines are nothing to look at."""
    lines = [line for line in printed(100, rounds=200).splitlines() if line.strip()]
    assert len(lines) == 1 + MOST_ROUNDS + 1
    assert lines[-2].split()[0] == "200"
    assert lines[-1] == "the last 50 rows of 201"


def test_the_platforms_server_takes_the_same_words() -> None:
    """``python3 server.py --plain``; without a word the terminal decides."""
    parse = _parser().parse_args
    assert [parse([]).live, parse(["--plain"]).live, parse(["--live"]).live] == [None, False, True]
