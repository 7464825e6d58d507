"""The hook for servers of Flower's older kind: ``fl.server.start_server(strategy=…)``.

Two lines in a server of one's own::

    from fedserver_hooks.legacy import with_emissions

    strategy = with_emissions(FedAvg(...), country="ESP")
    fl.server.start_server(server_address=…, config=…, strategy=strategy)

Same record and same rows as for `fedserver_hooks.strategy.EmissionsStrategy`, as far as this way can
carry them: Flower does not say here where a client connects from, so a bare ``emissions`` number is
never known to come from the server's own machine, and neither sizes of messages nor late replies are
seen. Clients that use `fedserver_hooks.client.track_emissions` name their host themselves.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flwr.common import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Parameters,
    Scalar,
)
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import Strategy

from fedserver_hooks.budget import BudgetWatch
from fedserver_hooks.draft import EXAMPLES_KEY
from fedserver_hooks.events import ReplyParts
from fedserver_hooks.metrics import MAX_SERIES, serve_metrics
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.saying import say_total, say_where
from fedserver_hooks.wire import RUN_ID_KEY, split_flat
from telemetry.domain import Phase, RunStatus

if TYPE_CHECKING:
    from fedserver_hooks.allocation import ServerScope
    from telemetry.store import Store

Ins = TypeVar("Ins", FitIns, EvaluateIns)
Res = TypeVar("Res", FitRes, EvaluateRes)

CLOSED: Final = "the connection closed before the client answered"
"""What is known of a client whose stream ended: Flower's error has no text."""
_REASON_CHARACTERS: Final = 200


def with_emissions(
    strategy: Strategy,
    store: str | Store = "sqlite:///telemetry.db",
    country: str | None = None,
    run_name: str | None = None,
    rounds: int | None = None,
    *,
    server_scope: ServerScope = "auto",
    budget_kg: float | None = None,
    metrics_port: int | None = None,
    max_series: int = MAX_SERIES,
    recorder: RoundRecorder | None = None,
) -> LegacyEmissionsStrategy:
    """``strategy`` with its carbon footprint on record; wrap last, outside of privacy wrappers.

    ``store`` is a database URL or an open store, ``country`` an ISO 3166 alpha-3 code (without it
    the world average intensity is used, and said). With ``rounds``, the ``num_rounds`` of the
    ``ServerConfig``, the run ends with the last of them; without, with the program.
    ``server_scope`` is what the server's figure is of: ``machine``, ``allocation`` (this container's
    share), ``process``, or ``auto``, which is allocation where a limit of CPU or memory is smaller
    than the machine. ``budget_kg`` is what the run may emit, kg CO2eq: a warning is logged when it is
    nearly and when it is wholly spent; Flower's loop plays every round. With ``metrics_port`` this
    machine's Prometheus is answered there until the program ends, with at most ``max_series`` series of
    runs (`serve_metrics` has more to choose). ``recorder`` replaces all of these. Raises
    `TelemetryError` for an unknown country, a scope that this machine does not have, a store that cannot
    be used, or a port that cannot be had.
    """
    budget: BudgetWatch | None = None
    if recorder is None:
        from fedserver_hooks.setup import new_recorder

        name = type(strategy).__name__
        budget = None if budget_kg is None else BudgetWatch(budget_kg)
        recorder = new_recorder(
            store,
            strategy=name,
            run_name=run_name or name,
            country=country,
            server_scope=server_scope,
            rounds_planned=rounds,
            budget_kg=budget_kg,
            on_round_closed=None if budget is None else budget.closed,
        )
        if budget is not None:
            budget.watch(recorder)
        if metrics_port is not None:
            serve_metrics(recorder, metrics_port, max_series=max_series)
    return LegacyEmissionsStrategy(strategy, recorder, rounds, budget)


class LegacyEmissionsStrategy(Strategy):
    """Any `flwr.server.strategy.Strategy`, recorded. Its results are those of ``strategy``."""

    def __init__(
        self,
        strategy: Strategy,
        recorder: RoundRecorder,
        rounds: int | None = None,
        budget: BudgetWatch | None = None,
    ) -> None:
        self.strategy = strategy
        self.recorder = recorder
        self.budget = budget
        self._rounds = rounds
        self._round = 0
        self._between_rounds = True
        self._asked: dict[str, None] = {}
        self._known: set[str] = set()

    # --- the run -----------------------------------------------------------------------------

    def finish(self) -> None:
        """End the run as the program ends; call it earlier where the program goes on."""
        crash = getattr(sys, "last_value", None)  # set where an exception ended the program
        if self._between_rounds and crash is None:
            self._end("completed")
        elif crash is not None:
            self._end("failed", f"{type(crash).__name__}: {crash}"[:256])
        else:  # Flower ends the program with exit code 0 on a signal
            self._end("interrupted")
        self.recorder.give_up()
        self.recorder.release()

    def _start(self) -> None:
        if not self.recorder.started:
            self.recorder.start_quietly(self._rounds)
            say_where(self.recorder)
            atexit.register(self.finish)

    # --- Flower's interface --------------------------------------------------------------------

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """The inner strategy's; the run begins here."""
        self._start()
        return self.strategy.initialize_parameters(client_manager)

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """The inner strategy's messages; a round begins here."""
        self._start()
        self._round = server_round
        self._between_rounds = False
        if self.budget is not None:
            self.budget.before_round(server_round, 0.0)  # Flower's loop cannot be stopped cleanly
        self.recorder.begin_round(server_round)
        messages = self.strategy.configure_fit(server_round, parameters, client_manager) or []
        self._look_around(client_manager)  # afterwards: the strategy waits for clients
        messages = self._marked("train", messages)
        if not messages:  # Flower then neither trains nor aggregates
            self.recorder.round_failed("no clients were selected")
        self.recorder.enter("wait")
        return messages

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Scalar]]:
        """The inner strategy's result, after the reports were taken out of the replies."""
        self.recorder.enter("aggregate")
        results = self._take_reports("train", results)
        for node, reason in self._failed(results, failures):
            self.recorder.failed(node, reason)
        failures = [_without_report(failure) for failure in failures]
        try:
            parameters, metrics = self.strategy.aggregate_fit(server_round, results, failures)
        except Exception as error:
            self.recorder.round_failed(f"aggregation failed: {_words(error)}")
            raise
        self.recorder.aggregated(parameters is not None, metrics)
        self.recorder.enter("idle")
        return parameters, metrics

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """The inner strategy's messages."""
        self.recorder.enter("evaluate")
        messages = self.strategy.configure_evaluate(server_round, parameters, client_manager) or []
        messages = self._marked("evaluate", messages)
        if not messages:
            self._round_ended()
        return messages

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[tuple[ClientProxy, EvaluateRes] | BaseException],
    ) -> tuple[float | None, dict[str, Scalar]]:
        """The inner strategy's result, after the reports were taken out of the replies."""
        results = self._take_reports("evaluate", results)
        failures = [_without_report(failure) for failure in failures]
        loss, metrics = self.strategy.aggregate_evaluate(server_round, results, failures)
        found: dict[str, Scalar] = dict(metrics or {})
        self.recorder.evaluated(found if loss is None else {"loss": loss, **found})
        self._round_ended()
        return loss, metrics

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        """The inner strategy's evaluation on the server."""
        return self.strategy.evaluate(server_round, parameters)

    # --- inside ------------------------------------------------------------------------------

    def _round_ended(self) -> None:
        self.recorder.enter("idle")
        self._between_rounds = True
        if self._round == self._rounds:
            self._end("completed")

    def _end(self, status: RunStatus, reason: str | None = None) -> None:
        if self.recorder.ending is None:
            self.recorder.finish(status, reason)
            say_total(self.recorder)

    def _look_around(self, client_manager: ClientManager) -> None:
        """Who is connected now: nobody tells of clients that come and go."""
        here = set(client_manager.all())
        for node in sorted(here - self._known):
            self.recorder.seen(node, None, None)
        for node in self._known - here:
            self.recorder.gone(node)
        self._known = here

    def _marked(
        self, phase: Phase, messages: Iterable[tuple[ClientProxy, Ins]]
    ) -> list[tuple[ClientProxy, Ins]]:
        """The messages with the run's id; clients that shared one still share one."""
        copies: dict[int, Any] = {}
        marked: list[tuple[ClientProxy, Ins]] = []
        for proxy, ins in messages:
            if id(ins) not in copies:
                config = {**ins.config, RUN_ID_KEY: self.recorder.run.run_id}
                copies[id(ins)] = replace(ins, config=config)
            marked.append((proxy, copies[id(ins)]))
        nodes = [proxy.cid for proxy, _ in marked]
        if phase == "train":
            self._asked = dict.fromkeys(nodes)
        self.recorder.sent(phase, nodes)
        return marked

    def _take_reports(
        self, phase: Phase, results: Iterable[tuple[ClientProxy, Res]]
    ) -> list[tuple[ClientProxy, Res]]:
        """All results, in order, without their reports."""
        kept: list[tuple[ClientProxy, Res]] = []
        taken: list[ReplyParts] = []
        for proxy, res in results:
            report, rest = split_flat(res.metrics or {})
            metrics: Mapping[str, object] = {**rest, EXAMPLES_KEY: res.num_examples}
            taken.append((proxy.cid, report, metrics))
            kept.append((proxy, replace(res, metrics=rest)))
        self.recorder.replies(phase, taken)
        return kept

    def _failed(
        self,
        results: Sequence[tuple[ClientProxy, FitRes]],
        failures: Iterable[tuple[ClientProxy, FitRes] | BaseException],
    ) -> list[tuple[str, str]]:
        """Who failed and why; an exception does not say whose it is, but who is left does."""
        known: dict[str, str] = {}
        errors: dict[str, None] = {}
        for failure in failures:
            if isinstance(failure, BaseException):
                errors[str(failure).strip() or CLOSED] = None
            else:
                proxy, res = failure
                said = f": {res.status.message}" if res.status.message else ""
                known[proxy.cid] = f"the client's status is {res.status.code.name}{said}"
        answered = {proxy.cid for proxy, _ in results}
        lost = [node for node in self._asked if node not in answered and node not in known]
        reason = " or ".join(errors) or CLOSED
        return [*known.items(), *((node, reason) for node in lost)]


def _without_report(failure: Any) -> Any:
    """A failure as the strategy may see it: a report in it is no metric of the training."""
    if isinstance(failure, BaseException):
        return failure
    proxy, res = failure
    return proxy, replace(res, metrics=split_flat(res.metrics or {})[1])


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:_REASON_CHARACTERS]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
