"""Puts the server together; the only place that knows the order of the layers.

Strategy → privacy → guard → emissions, outermost: the guard sees replies whose reports are already
taken out, privacy sees those that can be read, and the emissions hook sees what all of them made of
the round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from fedserver.config import ServerConfig
from fedserver.guard import GuardStrategy
from fedserver.metrics_log import MetricsLog
from fedserver.privacy import PUBLISHED
from fedserver.privacy.strategy import PrivateStrategy
from fedserver.transport import BidiGrid, Certificates, Gate
from fedserver_hooks.budget import BudgetWatch
from fedserver_hooks.clock import Clock, SystemClock
from fedserver_hooks.events import Watch
from fedserver_hooks.meter import Meter, NullMeter
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.setup import factors_for, new_recorder, resumed_recorder, server_meter
from fedserver_hooks.strategy import EmissionsStrategy
from telemetry.accounting import Rules
from telemetry.domain import Phase, RoundRecord
from telemetry.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of a running FL server."""

    strategy: EmissionsStrategy
    grid: BidiGrid
    recorder: RoundRecorder
    budget: BudgetWatch | None = None


class Bridge:
    """Hands what the transport sees to the recorder, and to the log what an operator wants to know."""

    def __init__(
        self, recorder: RoundRecorder, *, behind_proxy: bool = False, labelled: bool = False
    ) -> None:
        self._recorder = recorder
        self._behind_proxy = behind_proxy
        self._labelled = labelled
        self._sent_at: dict[tuple[int, Phase], float] = {}
        self.emissions: EmissionsStrategy | None = None

    def connected(self, node: int, name: str, loopback: bool) -> None:
        """A client's stream is open."""
        # A proxy on this machine says nothing of where its clients are.
        self._recorder.seen(node, name, loopback and not self._behind_proxy)
        if self._labelled:
            self._recorder.names.settle(node)
        logger.info("client %s connected", self._recorder.names.name(node))

    def disconnected(self, node: int) -> None:
        """A client's stream is gone."""
        logger.info("client %s disconnected", self._recorder.names.name(node))
        self._recorder.gone(node)

    def waiting(self, connected: int, required: int) -> None:
        """Clients are still waited for."""
        logger.info("waiting for clients: %d of %d connected", connected, required)

    def failed(self, node: int, phase: Phase, reason: str) -> None:
        """No usable answer came; a client that cannot evaluate is an ordinary one."""
        if "EVALUATE_NOT_IMPLEMENTED" not in reason:
            name = self._recorder.names.name(node)
            logger.info("client %s failed to %s: %s", name, phase, reason)

    def sent(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """A message went out."""
        self._sent_at[node, phase] = at
        self._recorder.sent(phase, [node], at, size_bytes)

    def replied(self, node: int, phase: Phase, at: float, size_bytes: int | None) -> None:
        """A reply came in time."""
        self._recorder.replied(node, phase, at, size_bytes)

    def overdue(self, node: int, size_bytes: int) -> None:
        """A reply came after its deadline: what travelled, travelled."""
        self._recorder.overdue(node, size_bytes)

    def late(self, reply: Message, phase: Phase, server_round: int) -> None:
        """A reply came after its deadline."""
        node = reply.metadata.src_node_id
        logger.info(
            "client %s answered round %d late; its energy counts, its model does not",
            self._recorder.names.name(node),
            server_round,
        )
        if self.emissions is not None:
            sent_at = self._sent_at.get((node, phase), reply.metadata.created_at)
            self.emissions.late_reply(reply, phase, server_round, sent_at)

    def reported(self, node: int, phase: Phase, report: ConfigRecord, server_round: int) -> None:
        """A client that failed reported what that cost; it counts in the round that is open."""
        self._recorder.late(node, phase, report, server_round, self._sent_at[node, phase])


def assemble(
    config: ServerConfig,
    store: Store,
    *,
    meter: Meter | None = None,
    clock: Clock | None = None,
    gate: Gate | None = None,
    certificates: Certificates | None = None,
    on_round_closed: Callable[[RoundRecord], None] | None = None,
    watch: Watch | None = None,
    resume: str | None = None,
) -> Server:
    """Everything that a run needs, not yet started. Raises `TelemetryError` or `ValueError`.

    ``resume`` is the id of a stored run to continue. ``watch`` is handed what happens to the run.
    """
    clock = clock or SystemClock()
    recorder, strategy, budget = recorded_strategy(
        config,
        store,
        meter=meter,
        clock=clock,
        on_round_closed=on_round_closed,
        watch=watch,
        resume=resume,
    )
    bridge = Bridge(recorder, behind_proxy=config.server.behind_proxy, labelled=gate is not None)
    grid = BidiGrid(
        config.server.address,
        certificates=certificates,
        gate=gate,
        max_message_mb=config.server.max_message_mb,
        keepalive_s=config.server.keepalive_s,
        listener=bridge,
        failures=recorder.failures,
        clock=clock,
    )
    bridge.emissions = strategy
    return Server(strategy, grid, recorder, budget)


def recorded_strategy(
    config: ServerConfig,
    store: Store,
    *,
    meter: Meter | None = None,
    clock: Clock | None = None,
    on_round_closed: Callable[[RoundRecord], None] | None = None,
    watch: Watch | None = None,
    resume: str | None = None,
) -> tuple[RoundRecorder, EmissionsStrategy, BudgetWatch | None]:
    """The record of the run, not yet started, strategy → guard → emissions, and who watches a budget.

    The same layers whichever way clients connect. Raises `TelemetryError` or `ValueError`.
    """
    needed = config.strategy.needs_metrics
    metrics_log = MetricsLog(name for name in config.metrics if name not in needed)

    budget = _budget(config)

    def round_closed(record: RoundRecord) -> None:
        if budget is not None:
            budget.closed(record)
        metrics_log.closed(record)
        if on_round_closed is not None:
            on_round_closed(record)

    recorder = _recorder(
        config,
        store,
        meter=meter,
        clock=clock,
        on_round_closed=round_closed,
        watch=watch,
        resume=resume,
    )

    if budget is not None:
        budget.watch(recorder, resumed=resume is not None)

    def failed(node: int, reason: str) -> None:
        logger.info("client %s failed: %s", recorder.names.name(node), reason)
        recorder.failed(node, reason)

    def round_failed(reason: str) -> None:
        logger.warning("the round has no new model: %s; the previous one stands", reason)
        recorder.round_failed(reason)

    inner = config.strategy.build(config.cohort)
    strategy = EmissionsStrategy(
        GuardStrategy(
            _private(config, inner, recorder),
            failed=failed,
            round_failed=round_failed,
            metrics=metrics_log.heard,
            needs_metrics=needed,
            wanted=config.metrics,
            remembers=inner,
        ),
        recorder,
    )
    return recorder, strategy, budget


def _budget(config: ServerConfig) -> BudgetWatch | None:
    """Who watches the budget; None where there is none."""
    if config.emissions.budget_kg is None or not config.track_emissions:
        return None
    return BudgetWatch(config.emissions.budget_kg, trusted=config.server.auth == "tokens")


def _recorder(
    config: ServerConfig,
    store: Store,
    *,
    meter: Meter | None,
    clock: Clock | None,
    on_round_closed: Callable[[RoundRecord], None],
    watch: Watch | None,
    resume: str | None,
) -> RoundRecorder:
    emissions = config.emissions
    if meter is None:
        meter = (
            server_meter(emissions.country, emissions.region, emissions.server_scope)
            if config.track_emissions
            else NullMeter()
        )
    rules = Rules(
        max_client_power_w=emissions.max_client_power_w,
        loopback_on_server_host=emissions.loopback_clients == "same_host",
    )
    if resume is not None:
        return resumed_recorder(
            store,
            resume,
            rules=rules,
            meter=meter,
            clock=clock,
            on_round_closed=on_round_closed,
            watch=watch,
        )
    return new_recorder(
        store,
        strategy=config.strategy.name,
        privacy="none" if config.privacy is None else config.privacy.label(config.strategy.name),
        run_name=config.run_name,
        tracked=config.track_emissions,
        factors=factors_for(
            emissions.country,
            emissions.region,
            emissions.carbon_intensity_g_per_kwh,
            emissions.pue,
            network_kwh_per_gb=emissions.network_kwh_per_gb,
            impute_missing=emissions.impute_missing,
        ),
        rounds_planned=config.rounds,
        metric_names=_metric_names(config),
        value_metric=emissions.value_metric,
        budget_kg=emissions.budget_kg,
        on_budget=emissions.on_budget,
        client_rows=config.telemetry.client_rows,
        rules=rules,
        meter=meter,
        clock=clock,
        on_round_closed=on_round_closed,
        watch=watch,
    )


def _private(config: ServerConfig, strategy: Strategy, recorder: RoundRecorder) -> Strategy:
    """The strategy with its privacy mechanism, if one is configured; says what it does not promise."""
    if config.privacy is None:
        return strategy
    for note in config.privacy.notes(config):
        logger.warning("%s", note)
    private = PrivateStrategy(strategy, config.privacy, told=recorder.privacy)
    if private.account is not None:
        private.account.announce(config.rounds)
    return private


def _metric_names(config: ServerConfig) -> tuple[str, ...]:
    """Training metrics on ``/metrics``: the configured ones, and what privacy was told to publish."""
    publish = config.privacy is not None and config.privacy.publish_distance
    return (*config.metrics, *(PUBLISHED if publish else ()))
