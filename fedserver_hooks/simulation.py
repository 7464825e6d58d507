"""Simulated clients on one machine: the server's one measurement, split by CPU time.

In a simulation (``flwr[simulation]``) every client runs in a process of the server's own machine. A
meter in each would measure that machine once more, so there is one, the server's, and clients say
only how much CPU time they took::

    client_app = ClientApp(mods=[cpu_time_mod])
    strategy = SimulationStrategy.wrap(FedAvg(), country="ESP")

A client's energy is the machine's while clients worked × the client's CPU time ÷ the CPU time of
everybody on the machine. What is left is the server's: its own work, that of the simulation's
machinery, and of whatever else ran. RAM and GPU are split by CPU time too, for want of anything
better: with training on a GPU the total is right, and who of the clients used it is not known.
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import fsum
from typing import TYPE_CHECKING, Final

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedserver_hooks.budget import BudgetWatch
from fedserver_hooks.metrics import MAX_SERIES
from fedserver_hooks.recorder import RoundRecorder
from fedserver_hooks.strategy import EmissionsStrategy
from fedserver_hooks.wire import RECORD_KEY
from telemetry.domain import GRAMS_PER_KG
from telemetry.reports import WIRE_SCHEMA

if TYPE_CHECKING:
    from fedserver_hooks.allocation import ServerScope
    from telemetry.store import Store

CPU_TIME_KEY: Final = "emissions-cpu-time"
_CPU_TIME_FIELD: Final = "cpu_time_s"
_SHORTEST_TURN_S: Final = 1e-5
"""Times travel in microseconds, and a turn that ends as it begins would be none."""

logger = logging.getLogger(__name__)


def cpu_time_mod(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """A mod for ``ClientApp(mods=[…])`` that tells `SimulationStrategy` the CPU time of each message.

    That of this process, all its threads, and the children that have ended.
    """
    begun = _cpu_time_s()
    reply = call_next(message, context)
    if reply.has_content():  # else it is an error reply
        reply.content[CPU_TIME_KEY] = ConfigRecord({_CPU_TIME_FIELD: _cpu_time_s() - begun})
    return reply


class SimulationStrategy(EmissionsStrategy):
    """`EmissionsStrategy` for a simulation whose clients have `cpu_time_mod`.

    Only where the server's figure is the whole machine's; else, or where it cannot be read, clients
    are missing, never guessed.
    """

    def __init__(
        self,
        strategy: Strategy,
        recorder: RoundRecorder,
        budget: BudgetWatch | None = None,
        *,
        busy_s: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``busy_s``: CPU seconds of everybody since the machine's start; ``clock``: epoch seconds."""
        super().__init__(strategy, recorder, budget)
        self._busy_s = busy_s or _machine_busy_s
        self._clock = clock
        self._begun: _Instant | None = None
        self._warned = False

    @classmethod
    def wrap(
        cls,
        strategy: Strategy,
        store: str | Store = "sqlite:///telemetry.db",
        country: str | None = None,
        run_name: str | None = None,
        *,
        server_scope: ServerScope = "machine",
        budget_kg: float | None = None,
        metrics_port: int | None = None,
        max_series: int = MAX_SERIES,
    ) -> EmissionsStrategy:
        """`EmissionsStrategy.wrap`, of the whole machine even in a container with limits."""
        return super().wrap(
            strategy,
            store,
            country,
            run_name,
            server_scope=server_scope,
            budget_kg=budget_kg,
            metrics_port=metrics_port,
            max_series=max_series,
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; from here on clients work."""
        messages = super().configure_train(server_round, arrays, config, grid)
        self._begun = self._look()
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The inner strategy's result; what clients used stands in their reports by then."""
        return super().aggregate_train(server_round, self._split(replies))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The inner strategy's messages; from here on clients work."""
        messages = super().configure_evaluate(server_round, arrays, config, grid)
        self._begun = self._look()
        return messages

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The inner strategy's result; what clients used stands in their reports by then."""
        return super().aggregate_evaluate(server_round, self._split(replies))

    # --- inside ------------------------------------------------------------------------------

    def _split(self, replies: Iterable[Message]) -> list[Message]:
        kept = list(replies)
        worked = [(reply, used_s) for reply in kept if (used_s := _take_cpu_time(reply))]
        begun, ended = self._begun, self._look()
        if begun is not None and ended is not None:
            self._report(worked, begun, ended)
        return kept

    def _report(
        self, worked: list[tuple[Message, float]], begun: _Instant, ended: _Instant
    ) -> None:
        """Write each client's part into its reply, as its own report.

        Their windows are turns, end to end, each as long as its part of the time: one measurement was
        split, so no two of them may claim the same moment of it.
        """
        clients_s = fsum(used_s for _, used_s in worked)
        busy_s = max(ended.busy_s - begun.busy_s, clients_s)
        intensity = self.recorder.run.factors.server_carbon_intensity_g_per_kwh
        turn_from = begun.at
        for reply, used_s in worked:
            share = used_s / busy_s
            energy_kwh = (ended.energy_kwh - begun.energy_kwh) * share
            turn_s = (ended.at - begun.at) * share
            if turn_s < _SHORTEST_TURN_S:
                continue
            reply.content[RECORD_KEY] = ConfigRecord(
                {
                    "schema": WIRE_SCHEMA,
                    "emissions_kg": energy_kwh * intensity / GRAMS_PER_KG,
                    "energy_kwh": energy_kwh,
                    "duration_s": turn_s,
                    "started_at": _as_text(turn_from),
                    "ended_at": _as_text(turn_from + turn_s),
                    "carbon_intensity_g_per_kwh": intensity,
                    "sensor": self.recorder.meter.sensor,
                    "scope": "process",
                    "host_id": self.recorder.run.server_host_id or "",
                }
            )
            turn_from += turn_s

    def _look(self) -> _Instant | None:
        """What machine and meter show now; None, and a WARNING the first time, where they do not."""
        try:
            if not self.recorder.run.tracked:
                return None
            if self.recorder.run.factors.server_scope != "machine":
                raise ValueError("the server's figure is not the whole machine's")
            if self.recorder.run.server_host_id is None:
                raise ValueError("nothing names this machine")
            return _Instant(self._clock(), self.recorder.meter.read().energy_kwh, self._busy_s())
        except Exception as error:  # noqa: BLE001  # telemetry never harms training
            if not self._warned:
                self._warned = True
                logger.warning("the simulated clients' emissions are not known: %s", error)
            return None


@dataclass(frozen=True, slots=True)
class _Instant:
    """Epoch seconds, and what the whole machine has used since some beginning."""

    at: float
    energy_kwh: float
    busy_s: float


def _take_cpu_time(reply: Message) -> float | None:
    """Remove what `cpu_time_mod` added; None where it is not there or no positive number."""
    if not reply.has_content():
        return None
    record = reply.content.pop(CPU_TIME_KEY, None)
    value = record.get(_CPU_TIME_FIELD) if isinstance(record, ConfigRecord) else None
    return value if isinstance(value, float) and 0 < value < float("inf") else None


def _cpu_time_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _machine_busy_s() -> float:
    """Of all CPUs. Guests are in user time already; stolen time was worked by another machine."""
    import psutil  # comes with codecarbon, without which there is nothing to split

    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq")
    return fsum(getattr(times, name, 0.0) for name in names)


def _as_text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds")
