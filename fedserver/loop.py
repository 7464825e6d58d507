"""Plays the rounds of a training.

The same calls in the same order as `flwr.serverapp.strategy.Strategy.start`, and bit for bit the same
model, but for what that cannot do: wait for clients within limits, survive a failed round, begin at a
later round, and stop in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import Strategy

from fedserver.transport.base import RoundGrid, Stopped, TooFewClients

logger = logging.getLogger(__name__)

Ended = Literal["completed", "failed", "interrupted", "stopped_on_budget"]


@dataclass(frozen=True, slots=True)
class LoopResult:
    """How the rounds ended. ``arrays`` is the last model that was aggregated, or the first one."""

    arrays: ArrayRecord | None
    rounds_played: int
    """Round numbers that were played to their end in this loop, failed ones included."""
    ended: Ended
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Limits:
    """What a round waits for, in nodes and seconds."""

    min_nodes: int
    min_evaluate_nodes: int
    round_timeout_s: float
    wait_timeout_s: float


class _Training:
    """One training as it goes: the model, and the configs that strategies write into."""

    def __init__(
        self,
        strategy: Strategy,
        grid: RoundGrid,
        arrays: ArrayRecord,
        limits: _Limits,
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
    ) -> None:
        self.strategy = strategy
        self.grid = grid
        self.arrays = arrays
        self.limits = limits
        self.played = 0
        self.aggregated = 0
        self.train_config = ConfigRecord() if train_config is None else train_config
        self.evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config

    def gather(self, timeout_s: float | None) -> bool:
        """Wait for the first clients, before any round begins. Whether they came."""
        self.grid.require(self.limits.min_nodes, timeout_s)
        try:
            self.grid.get_node_ids()
        except TooFewClients:
            return False
        return True

    def play(self, number: int, wait_s: float) -> str | None:
        """One round; why it failed, None if it did not.

        After a failed training the model is the one that was evaluated before: it is not again.
        """
        failure = self._train(number, wait_s)
        if failure is None:
            self.aggregated += 1
            self._evaluate(number)
        self.played += 1
        return failure

    def _train(self, number: int, wait_s: float) -> str | None:
        self.grid.require(self.limits.min_nodes, wait_s)
        try:
            messages = self.strategy.configure_train(
                number, self.arrays, self.train_config, self.grid
            )
        except TooFewClients as error:
            logger.warning("round %d failed: %s", number, error)
            return str(error)
        replies = self.grid.send_and_receive(messages, timeout=self.limits.round_timeout_s)
        arrays, _ = self.strategy.aggregate_train(number, replies)
        if arrays is None:
            return "nothing was aggregated"
        self.arrays = arrays
        return None

    def _evaluate(self, number: int) -> None:
        self.grid.require(self.limits.min_evaluate_nodes, 0)
        try:
            messages = self.strategy.configure_evaluate(
                number, self.arrays, self.evaluate_config, self.grid
            )
        except TooFewClients as error:
            logger.info("round %d is not evaluated: %s", number, error)
            return
        replies = self.grid.send_and_receive(messages, timeout=self.limits.round_timeout_s)
        self.strategy.aggregate_evaluate(number, replies)

    def result(self, ended: Ended, reason: str | None = None) -> LoopResult:
        return LoopResult(self.arrays, self.played, ended, reason)


def run_rounds(
    strategy: Strategy,
    grid: RoundGrid,
    arrays: ArrayRecord,
    *,
    rounds: int,
    round_timeout_s: float,
    wait_timeout_s: float | None,
    min_nodes: int,
    min_evaluate_nodes: int,
    max_failed_rounds: int,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    first_round: int = 1,
    may_go_on: Callable[[int], str | None] | None = None,
    on_round_end: Callable[[int, ArrayRecord], None] | None = None,
) -> LoopResult:
    """Play round numbers ``first_round`` to ``rounds``, beginning with the model ``arrays``.

    ``round_timeout_s`` limits training and evaluation separately. ``wait_timeout_s`` is how long a
    round waits for ``min_nodes`` free clients; None is no limit before the first round, then
    ``round_timeout_s``. Too few clients in time, or no new model, is a failed round: counted, never
    repeated, the previous model stands. ``max_failed_rounds`` of them in a row end the training, and
    so does a training none of whose rounds made a model. Too few clients for evaluation skip it.

    ``may_go_on`` is asked before each round, with its number; a reason in words ends the training
    there, ``stopped_on_budget``. ``on_round_end`` gets each round's number and the model after it. Does not raise for any of this;
    what a strategy raises while it configures a round goes through.
    """
    patience_s = round_timeout_s if wait_timeout_s is None else wait_timeout_s
    limits = _Limits(min_nodes, min_evaluate_nodes, round_timeout_s, patience_s)
    training = _Training(strategy, grid, arrays, limits, train_config, evaluate_config)
    in_a_row = 0
    if first_round > rounds:
        return training.result("completed")
    try:
        gathered = training.gather(wait_timeout_s)
        for number in range(first_round, rounds + 1):
            if may_go_on is not None and (reason := may_go_on(number)) is not None:
                return training.result("stopped_on_budget", reason)
            # Who waited in vain already does not wait again: that round has failed.
            failure = training.play(number, patience_s if gathered else 0.0)
            gathered = True
            in_a_row = 0 if failure is None else in_a_row + 1
            if on_round_end is not None:
                on_round_end(number, training.arrays)
            if failure is not None and in_a_row >= max_failed_rounds:
                return training.result("failed", _in_a_row(in_a_row, failure))
    except Stopped:
        return training.result("interrupted")
    if not training.aggregated and first_round == 1:  # a resumed one has had a model before
        return training.result("failed", "no round made a new model")
    return training.result("completed")


def _in_a_row(count: int, last: str) -> str:
    rounds = "1 round" if count == 1 else f"{count} rounds in a row"
    return f"{rounds} failed; the last because: {last}"
