"""The hook for Flower's Message-API servers: the outermost wrapper around any strategy.

It takes each client's report out of the replies, tells a `RoundRecorder` what happens, and leaves
everything else alone: the strategy inside gets the same array bytes, the same order and the same
records as without it, and what it returns is returned unchanged.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedserver_hooks.budget import BudgetWatch
from fedserver_hooks.events import ReplyParts
from fedserver_hooks.metrics import MAX_SERIES, serve_metrics
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.saying import say_total, say_where
from fedserver_hooks.wire import RUN_ID_KEY, take_report
from telemetry.domain import Phase
from telemetry.errors import TelemetryError

if TYPE_CHECKING:
    from fedserver_hooks.allocation import ServerScope
    from telemetry.store import Store


class EmissionsStrategy(Strategy):
    """Any strategy, with its carbon footprint on record.

    Wrap last, outside of privacy wrappers: those check the class of what they wrap. ``start`` is
    Flower's own; it also starts the record, and ends it however the training ends.
    """

    def __init__(
        self, strategy: Strategy, recorder: RoundRecorder, budget: BudgetWatch | None = None
    ) -> None:
        self.strategy = strategy
        self.recorder = recorder
        self.budget = budget

    @classmethod
    def wrap(
        cls,
        strategy: Strategy,
        store: str | Store = "sqlite:///telemetry.db",
        country: str | None = None,
        run_name: str | None = None,
        *,
        server_scope: ServerScope = "auto",
        budget_kg: float | None = None,
        metrics_port: int | None = None,
        max_series: int = MAX_SERIES,
    ) -> EmissionsStrategy:
        """The two-line form: a recorder with codecarbon as its meter and a store by URL.

        ``country`` is an ISO 3166 alpha-3 code; without it the world average intensity is used, and
        said. ``server_scope`` is what the server's figure is of: ``machine``, ``allocation`` (this
        container's share), ``process``, or ``auto``, which is allocation where a limit of CPU or
        memory is smaller than the machine. ``budget_kg`` is what the run may emit, kg CO2eq: a
        warning is logged when it is nearly and when it is wholly spent; Flower's loop plays every
        round. With ``metrics_port`` this machine's Prometheus is answered there until the program
        ends, with at most ``max_series`` series of runs (`serve_metrics` has more to choose). Raises
        `TelemetryError` for an unknown country, a scope that this machine does not have, a store that
        cannot be used, or a port that cannot be had.
        """
        from fedserver_hooks.setup import new_recorder

        budget = None if budget_kg is None else BudgetWatch(budget_kg)
        recorder = new_recorder(
            store,
            strategy=type(strategy).__name__,
            run_name=run_name or type(strategy).__name__,
            country=country,
            server_scope=server_scope,
            budget_kg=budget_kg,
            on_round_closed=None if budget is None else budget.closed,
        )
        if budget is not None:
            budget.watch(recorder)
        if metrics_port is not None:
            serve_metrics(recorder, metrics_port, max_series=max_series)
        return cls(strategy, recorder, budget)

    # --- Flower's interface ------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Flower's own `Strategy.start`, within one recorded run."""
        self.recorder.start_quietly(num_rounds)
        say_where(self.recorder)
        try:
            result = super().start(
                grid,
                initial_arrays,
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                evaluate_fn,
            )
        except Exception as error:
            self.recorder.finish("failed", f"{type(error).__name__}: {error}"[:256])
            raise
        except BaseException:  # Ctrl-C, or Flower ending the process
            self.recorder.finish("interrupted")
            raise
        else:
            self.recorder.finish("completed")
        finally:
            say_total(self.recorder)
            self.recorder.give_up()
            self.recorder.release()
        return result

    def summary(self) -> None:
        """The inner strategy's summary."""
        self.strategy.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; a round begins here."""
        if not self.recorder.started:  # somebody drives the rounds without `start`
            self.recorder.start_quietly()
            atexit.register(self.recorder.finish, "interrupted")
        if self.budget is not None:
            self.budget.before_round(server_round, 0.0)  # Flower's loop cannot be stopped cleanly
        self.recorder.begin_round(server_round)
        messages = self._configure("train", server_round, arrays, config, grid)
        self.recorder.enter("wait")
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's result, after the reports were taken out of the replies."""
        replies = self._take_reports("train", replies)
        try:
            arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        except Exception as error:
            self.recorder.round_failed(f"aggregation failed: {_words(error)}")
            raise
        self.recorder.aggregated(arrays is not None, metrics)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages."""
        self.recorder.evaluating()
        return self._configure("evaluate", server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The inner strategy's result, after the reports were taken out of the replies."""
        replies = self._take_reports("evaluate", replies)
        metrics = self.strategy.aggregate_evaluate(server_round, replies)
        self.recorder.evaluated(metrics)
        return metrics

    def late_reply(self, reply: Message, phase: Phase, server_round: int, sent_at: float) -> None:
        """A reply that came after its time: its report counts, its model does not."""
        report, _ = take_report(reply.content)
        if report is not None:
            node = reply.metadata.src_node_id
            self.recorder.late(node, phase, report, server_round, sent_at)

    # --- inside ------------------------------------------------------------------------------

    def _configure(
        self,
        phase: Phase,
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        grid: Grid,
    ) -> Iterable[Message]:
        config[RUN_ID_KEY] = self.recorder.run.run_id
        inner: Any = getattr(self.strategy, f"configure_{phase}")
        try:
            messages: list[Message] = list(inner(server_round, arrays, config, grid))
        except Exception as error:
            if phase == "train":
                self.recorder.round_failed(_words(error))
            raise
        self.recorder.sent(phase, [message.metadata.dst_node_id for message in messages])
        return messages

    def _take_reports(self, phase: Phase, replies: Iterable[Message]) -> list[Message]:
        """All replies, in order, without their reports. With or without tracking they are removed."""
        kept = list(replies)
        taken: list[ReplyParts] = []
        for reply in kept:
            node = reply.metadata.src_node_id
            if reply.has_error():
                if phase == "train":
                    self.recorder.failed(node, reply.error.reason or f"error {reply.error.code}")
                continue
            taken.append((node, *take_report(reply.content)))
        self.recorder.replies(phase, taken)
        return kept


def _words(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, TelemetryError):  # ours are sentences
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
