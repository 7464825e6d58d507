"""Keeps the record of a run, whatever kind of Flower server it belongs to.

A `RoundRecorder` is told what happens (a round begins, messages go out, replies come) and sees to
it that each round is metered, accounted for and stored. It is plain Python: strategies, transports
and loops call it, it calls none of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fedserver_hooks import events
from fedserver_hooks.clock import Clock, SystemClock
from fedserver_hooks.draft import Draft, FactBuilder, Names
from fedserver_hooks.edge import Overhead, guarded, harmless
from fedserver_hooks.events import Node, ReplyParts, Watch
from fedserver_hooks.open_round import OpenRound
from fedserver_hooks.phases import PhaseLedger, RoundKey
from fedserver_hooks.reader import Reader, ThreadReader
from fedserver_hooks.readings import Meter, MeterError, MeterHangs
from fedserver_hooks.record import RecordMaker
from fedserver_hooks.run_end import Ending, RunEnd
from telemetry.accounting import Rules
from telemetry.domain import (
    NoiseRecord,
    Owner,
    Phase,
    RoundRecord,
    RunInfo,
    RunStatus,
    ServerPhase,
    utc_now,
)
from telemetry.durations import Durations
from telemetry.lease import this_process
from telemetry.store.base import Store
from telemetry.writer import Failures, RoundWriter

BARRIER_S: Final = 0.25
"""The longest that a call of the training's takes, whatever becomes of meter and store."""
WAIT_S: Final = 0.16
"""For so long a round's start waits for the round before to be on disk: waking up takes time, too, and the
garbage collector, if it looks just then, 0.07 s.
"""
METER_START_S: Final = 15.0
"""The longest that a run's start waits for the meter; it goes on unmetered after that."""
LAST_WRITE_S: Final = 10.0
"""The longest that an ordinary end of a run waits for the store."""


class RoundRecorder:
    """The record of one run.

    `start` may raise (a store that cannot be written, a run that exists) and waits for the meter: a
    server calls it before its port opens. From then on no method raises, and none blocks for longer
    than `BARRIER_S`, but `finish` for as long as it is given (and `STOP_S` for the meter).

    With ``attempts`` it continues a stored run that ended before its time: which attempt each round
    number is at next (1 for those that are not named), and ``rounds_before``, how many rounds it has had
    in all. Set-up is a new attempt at round 0.

    The meter is read in a thread of its own; ``reader`` is for meters that replay, under a clock
    that is turned by hand. ``watch`` is handed every event and record; see `events.Watch`.
    """

    def __init__(
        self,
        run: RunInfo,
        store: Store,
        meter: Meter,
        *,
        rules: Rules | None = None,
        clock: Clock | None = None,
        owner: Owner | None = None,
        on_round_closed: Callable[[RoundRecord], None] | None = None,
        attempts: Mapping[int, int] | None = None,
        rounds_before: int = 0,
        reader: Callable[[Callable[[], None], float], Reader] = ThreadReader,
        watch: Watch | None = None,
    ) -> None:
        self.run = run
        self.store = store
        self.meter = meter
        self.failures = Failures()
        self.overhead = Overhead()
        self.names = Names(store.secret)
        self.ending: Ending | None = None
        self.owner = owner or this_process()
        self._rules = rules or Rules()
        self._clock = clock or SystemClock()
        self._ledger = PhaseLedger(meter, self._clock, on_failure=self._meter_failed, reader=reader)
        self._writer = RoundWriter(
            store,
            run.run_id,
            self.owner,
            self.failures,
            on_made=self._tell,
            on_closed=on_round_closed,
            refresh=self._refresh,
        )
        self._open = OpenRound(
            self.names,
            tracked=run.tracked,
            make=self._make,
            submit=self._writer.submit,
            rounds_before=rounds_before,
        )
        self._end = RunEnd(run.run_id, self.owner, store, self._writer, self.failures)
        self._watch = watch
        self._started = False
        self._finished = False
        self._attempts = attempts

    # --- the run ---------------------------------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether `start` was called."""
        return self._started

    def start(self, rounds_planned: int | None = None) -> None:
        """Begin metering, store the run and begin round 0 (the set-up). Raises `TelemetryError`.

        Waits for the meter, so that its sensor is known and round 1 is metered from its beginning.
        """
        if self._started:
            return
        if rounds_planned is not None:
            self.run = self.run.model_copy(update={"rounds_planned": rounds_planned})
        resumed = self._attempts is not None
        began = self._clock() if resumed else self.run.started_at.timestamp()
        if self.run.tracked:
            self.meter.start()
            self.meter.wait_ready(METER_START_S)  # what is wrong, the first reading says
        factors = dataclasses.replace(
            self.run.factors, server_sensor=self.meter.sensor, server_scope=self.meter.scope
        )
        self.run = self.run.model_copy(update={"factors": factors, "tracker": self.meter.tracker})
        try:
            if resumed:
                self.store.resume_run(self.run.run_id, self.owner, utc_now())
            else:
                self.store.start_run(self.run, self.owner, utc_now())
        except BaseException:
            self.meter.stop()
            raise
        self._maker = RecordMaker(self.run, self._rules, self._clock, self._ledger, self.failures)
        self._started = True
        self._writer.start()
        # The run's start is round 0's: the sum of the rounds is then the run's time, exactly.
        key = self._key(0)
        self._turn_over(began, key)
        if self.run.tracked:
            self._ledger.enter(key, "setup", now=began)
            self._ledger.catch_up()  # the first reading: what is metered counts from it

    def start_quietly(self, rounds_planned: int | None = None) -> None:
        """`start` for where training has begun already: what goes wrong is counted, not raised."""
        try:
            self.start(rounds_planned)
        except Exception as error:  # noqa: BLE001 - the edge between training and telemetry
            self.failures.note("hook", "the run is not recorded", error=error)

    def finish(
        self, status: RunStatus, reason: str | None = None, timeout_s: float = LAST_WRITE_S
    ) -> None:
        """Close the last round, end the run and stop the meter. May be called again; then a no-op."""
        if not self._started or self._finished:
            return
        self._finished = True
        self._finish(status, reason, timeout_s)

    @harmless
    def _finish(self, status: RunStatus, reason: str | None, timeout_s: float) -> None:
        ended = self._ledger.leave() if self.run.tracked else self._clock()
        if status == "interrupted":
            self._open.interrupted()
        self._open.turn_over(ended, None)
        self._tell(events.Over(status, ended))
        ended_at = max(self.run.started_at, datetime.fromtimestamp(ended, UTC))
        self.ending = Ending(status, ended_at, None if reason is None else _text(reason))
        self._end.write(self.ending, self._open.unplaced, timeout_s)
        self._ledger.close()

    def delivered(self, timeout_s: float = 0.0) -> bool:
        """After `finish`: whether all of the run is in the store, waiting for it so long."""
        return self._writer.wait_done(timeout_s)

    def leftovers(self) -> Sequence[RoundRecord]:
        """The process is about to go: try no more, and return what is not in the store."""
        return self._writer.abandon()

    @harmless
    def give_up(self) -> None:
        """Nobody keeps what the store has not taken: try no more, and say what is lost."""
        self._end.tell_lost(self.leftovers())

    @harmless
    def release(self) -> None:
        """The process is about to go: let others serve the run."""
        if self._started:
            self._end.release()

    # --- rounds ------------------------------------------------------------------------------

    @harmless
    def begin_round(self, number: int, attempt: int | None = None) -> None:
        """A round begins, and the one before ends at the same instant.

        ``attempt`` is the next one at that round where it is not given.

        Waits, but never for long, until what is known of the one before is on disk.
        """
        if self._finished or not self._started:
            return
        key = self._key(number) if attempt is None else (number, attempt)
        if self._open.key == key:
            return
        self._writer.barrier(WAIT_S)
        self._turn_over(self._enter(key, "configure"), key)
        self._open.write()

    @harmless
    def enter(self, phase: ServerPhase) -> None:
        """The server goes over to another phase of the round."""
        key = self._open.key
        if key is not None and not self._finished:
            self._enter(key, phase)

    @harmless
    def aggregated(self, arrived: bool, metrics: Mapping[str, Any] | None) -> None:
        """Aggregation has ended; ``arrived`` says whether there is a new model. The server is idle."""
        self._idle(self._open.aggregated(arrived, metrics))

    @harmless
    def evaluating(self) -> None:
        """Evaluation begins. What training came to is stored meanwhile."""
        key = self._open.key
        if key is not None:
            self._enter(key, "evaluate")
            self._open.write()

    @harmless
    def evaluated(self, metrics: Mapping[str, Any] | None) -> None:
        """Evaluation has ended; the server is idle."""
        self._idle(self._open.evaluated(metrics))
        self._open.write()

    @harmless
    def round_failed(self, reason: str) -> None:
        """The round has no new model, and why; the first reason stands."""
        self._open.failed(_text(reason))

    @harmless
    def privacy(self, epsilon: float | None, noise: NoiseRecord | None) -> None:
        """What the run has spent of its privacy so far, and the noise of this round's model.

        ``epsilon`` is shown and exported, ``noise`` only stored; None is "not accounted for" and
        "nothing was released".
        """
        self._open.privacy(epsilon, noise)

    # --- clients -------------------------------------------------------------------------------

    @harmless
    def seen(self, node: Node, name: str | None, loopback: bool | None) -> None:
        """A node connected."""
        self.names.seen(node, name, loopback)
        self._open.connected(node)
        self._tell(events.Seen(node))

    @harmless
    def gone(self, node: Node) -> None:
        """A node disconnected."""
        self.names.gone(node)
        self._open.gone(node)
        self._tell(events.Gone(node))

    @harmless
    def sent(
        self, phase: Phase, nodes: Sequence[Node], at: float | None = None,
        size_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """A message went out to each of these nodes."""
        self._append(events.Sent(phase, nodes, self._clock() if at is None else at, size_bytes))

    @harmless
    def replied(self, node: Node, phase: Phase, at: float, size_bytes: int | None = None) -> None:
        """One node's reply arrived."""
        self._append(events.ReplyArrived(phase, node, at, size_bytes))

    @harmless
    def overdue(self, node: Node, size_bytes: int) -> None:
        """A node's reply arrived that nobody waits for any more: so much came all the same."""
        self._append(events.Overdue(node, size_bytes))

    @harmless
    def failed(self, node: Node, reason: str) -> None:
        """A node's update cannot be used."""
        self._append(events.Failed(node, reason))

    @harmless
    def replies(self, phase: Phase, replies: Sequence[ReplyParts]) -> None:
        """Replies are here, with the reports taken out. After those to training comes aggregation."""
        key = self._append(events.Replied(phase, replies, self._clock()))
        if key is not None and phase == "train":
            self._enter(key, "aggregate")

    @harmless
    def late(
        self,
        node: Node,
        phase: Phase,
        report: Mapping[str, object],
        round_number: int,
        sent_at: float,
    ) -> None:
        """A report came after its phase had been given up; it counts where it arrives."""
        if not self.run.tracked:
            return
        self._append(events.LateReport(phase, node, report, round_number, sent_at, self._clock()))

    def settle(self, timeout_s: float) -> bool:
        """Have what is known of the open round stored, its energy read to now.

        Not for the training's thread: it waits for the meter, and ``timeout_s`` for the store. False
        if that takes longer.
        """
        if self.run.tracked:
            self._ledger.catch_up()
        self._open.write()
        return self._writer.barrier(timeout_s)

    # --- for /metrics ----------------------------------------------------------------------------

    @property
    def errors(self) -> Mapping[str, int]:
        """Failures of telemetry so far, by stage."""
        return self.failures.counts

    @property
    def undelivered_rounds(self) -> int:
        """Rounds that are not in the store yet."""
        return self._writer.undelivered_rounds

    @property
    def oldest_undelivered_s(self) -> float | None:
        """None: only with a service is there an age to tell."""
        return None

    @property
    def overhead_s(self) -> float:
        """Seconds of the training's own time that telemetry took so far."""
        return self.overhead.seconds

    @property
    def writes(self) -> Durations:
        """How long the store took for each round."""
        return self._writer.writes

    @property
    def round_key(self) -> RoundKey | None:
        """(round, attempt) of the open round."""
        return self._open.key

    # --- inside ----------------------------------------------------------------------------------

    def _key(self, number: int) -> RoundKey:
        return number, (self._attempts or {}).get(number, 1)

    def _enter(self, key: RoundKey, phase: ServerPhase) -> float:
        return self._ledger.enter(key, phase) if self.run.tracked else self._clock()

    def _idle(self, key: RoundKey | None) -> None:
        if key is not None:
            self._enter(key, "idle")

    def _append(self, event: events.RoundEvent) -> RoundKey | None:
        key = self._open.append(event)
        if key is not None:
            self._tell(event)
        return key

    def _turn_over(self, now: float, key: RoundKey) -> None:
        self._open.turn_over(now, key)
        self._tell(events.Began(key, now))

    @guarded
    def _tell(self, news: events.Event | RoundRecord) -> None:
        if self._watch is not None:
            self._watch(news)

    @guarded
    def _refresh(self) -> None:
        """Now and then, from the writer's thread: store how far the open round is."""
        if self.run.tracked:
            self._ledger.refresh()
        self._open.write()

    def _make(
        self, draft: Draft, builder: FactBuilder, revision: int, *, closed: bool
    ) -> RoundRecord:
        return self._maker.make(draft, builder, revision, closed=closed)

    def _meter_failed(self, failure: MeterError) -> None:
        if isinstance(failure, MeterHangs):
            self.failures.note("meter", failure.reason)
        else:
            self.failures.note("meter", f"the server is not metered: {failure.reason}")


def _text(words: str) -> str:
    """As any store takes it: half a character, as in the name of a file, is none."""
    return words.encode("utf-8", "replace").decode()
