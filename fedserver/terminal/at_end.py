"""What stays on a terminal of a training that has ended."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from rich.console import Console

from fedserver.ending import Outcome, log_end
from fedserver.rounds_table import rounds_table
from telemetry.errors import TelemetryError
from telemetry.store import Store

MOST_ROUNDS: Final = 50
"""Rounds of a table that nobody asked for; the last ones."""


def table_and_log(console: Console) -> Callable[[Outcome, Store], None]:
    """The rounds as a table, then the lines that the log ends with."""

    def tell(outcome: Outcome, store: Store) -> None:
        with suppress(TelemetryError):  # the closing line says what is wrong
            print_rounds(console, outcome.run_id, store)
        log_end(outcome, store)

    return tell


def print_rounds(console: Console, run_id: str, store: Store) -> None:
    """The rounds, the last if there are many, as wide as there is room."""
    rounds, names = list(store.rounds(run_id)), store.run(run_id).info.metric_names
    console.print()
    console.print(rounds_table(rounds[-MOST_ROUNDS:], names, console.width))
    if len(rounds) > MOST_ROUNDS:
        console.print(f"the last {MOST_ROUNDS} rows of {len(rounds)}", style="dim", highlight=False)
    console.print()
