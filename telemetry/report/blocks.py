"""Rounds in blocks: one round each where there are few, ten or a hundred where there are many.

Every attempt at a round is in its block, so that the blocks of a run add up to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from typing import Final

from telemetry.domain import RoundSummary, sum_known

_FACTORS: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rounds with all their attempts; the set-up is a block of its own."""

    rows: tuple[RoundSummary, ...]

    @property
    def first(self) -> int:
        """Number of its first round."""
        return self.rows[0].round

    @property
    def last(self) -> int:
        """Number of its last round."""
        return self.rows[-1].round

    @property
    def rounds(self) -> int:
        """How many rounds, each counted once."""
        return len({row.round for row in self.rows})

    @property
    def name(self) -> str:
        """``set-up``, ``3`` or ``11–20``."""
        if self.first == 0:
            return "set-up"
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"

    @property
    def complete(self) -> bool:
        """Whether all of it was metered, and every participant reported."""
        return all(row.complete for row in self.rows)

    def sum(self, figure: str) -> float | None:
        """Sum of a figure's known values over its rows; None where none is known."""
        return sum_known(getattr(row, figure) for row in self.rows)

    def count(self, figure: str) -> int | None:
        """Likewise of a count."""
        known = [value for row in self.rows if (value := getattr(row, figure)) is not None]
        return sum(known) if known else None


def blocks(rounds: Sequence[RoundSummary], size: int) -> list[Block]:
    """Closed rounds by (round, attempt), so many round numbers to a block: 1–10, 11–20, …"""

    def place(row: RoundSummary) -> int:
        return -1 if row.round == 0 else (row.round - 1) // size

    return [Block(tuple(rows)) for _, rows in groupby(rounds, place)]


def block_size(rounds: Sequence[RoundSummary], most: int) -> int:
    """The smallest of 1, 2, 5, 10, 20, … with which there are at most so many blocks."""
    highest = rounds[-1].round if rounds else 0
    return next(size for size in _sizes() if -(-highest // size) <= most)


def _sizes() -> Iterator[int]:
    return (factor * 10**power for power in count() for factor in _FACTORS)
