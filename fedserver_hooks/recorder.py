"""Keeps the record of a run, whatever kind of Flower server it belongs to.

A `RoundRecorder` is told what happens (a round begins, messages go out, replies come) and sees to
it that each round is metered, accounted for and stored. It is plain Python: strategies, transports
and loops call it, it calls none of them.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Concatenate, Final, ParamSpec

from fedserver_hooks.clock import Clock, SystemClock
from fedserver_hooks.draft import (
    Draft,
    Event,
    FactBuilder,
    Failed,
    LateReport,
    Names,
    Node,
    Replied,
    ReplyArrived,
    ReplyParts,
    Sent,
)
from fedserver_hooks.phases import PhaseLedger, RoundKey
from fedserver_hooks.reader import Reader, ThreadReader
from fedserver_hooks.readings import Meter, MeterError, MeterHangs
from fedserver_hooks.record import RecordMaker
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
from telemetry.errors import StoreError
from telemetry.lease import this_process
from telemetry.store.base import Store
from telemetry.writer import Failures, RoundWriter

BARRIER_S: Final = 0.25
"""The longest that a round's start waits for the round before to be on disk."""
METER_START_S: Final = 15.0
"""The longest that a run's start waits for the meter; it goes on unmetered after that."""
LAST_WRITE_S: Final = 10.0
"""The longest that an ordinary end of a run waits for the store."""

_MOST_NAMED: Final = 20

P = ParamSpec("P")


def _guarded(
    method: Callable[Concatenate[RoundRecorder, P], None],
) -> Callable[Concatenate[RoundRecorder, P], None]:
    """A fault of ours is counted, not raised."""

    @functools.wraps(method)
    def call(self: RoundRecorder, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - the edge between training and telemetry
            self.failures.note("hook", f"{method.__name__} failed", error=error)

    return call


def _harmless(
    method: Callable[Concatenate[RoundRecorder, P], None],
) -> Callable[Concatenate[RoundRecorder, P], None]:
    """The outermost edge between training and telemetry: guarded, and what it takes is noted."""
    guarded = _guarded(method)

    @functools.wraps(method)
    def call(self: RoundRecorder, /, *args: P.args, **kwargs: P.kwargs) -> None:
        begin = time.perf_counter()
        try:
            guarded(self, *args, **kwargs)
        finally:
            took_s = time.perf_counter() - begin
            with self._overhead_lock:
                self._overhead_s += took_s

    return call


@dataclasses.dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended."""

    status: RunStatus
    ended_at: datetime
    reason: str | None


class RoundRecorder:
    """The record of one run.

    `start` may raise (a store that cannot be written, a run that exists) and waits for the meter: a
    server calls it before its port opens. From then on no method raises, and none blocks for longer
    than `BARRIER_S`, but `finish` for as long as it is given (and `STOP_S` for the meter).

    With ``attempts`` it continues a stored run that ended before its time: which attempt each round
    number is at next (1 for those that are not named). Set-up is a new attempt at round 0.

    The meter is read in a thread of its own; ``reader`` is for meters that replay, under a clock
    that is turned by hand.
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
        reader: Callable[[Callable[[], None], float], Reader] = ThreadReader,
    ) -> None:
        self.run = run
        self.store = store
        self.meter = meter
        self.failures = Failures()
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
            on_closed=on_round_closed,
            refresh=self._refresh,
        )
        self._overhead_lock = threading.Lock()
        self._overhead_s = 0.0
        self._lock = threading.Lock()
        self._draft: Draft | None = None
        self._builder: FactBuilder | None = None
        self._started = False
        self._finished = False
        self._unplaced = 0
        self._connected: set[Node] = set()
        self._sees_connections = False
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

    @_harmless
    def _finish(self, status: RunStatus, reason: str | None, timeout_s: float) -> None:
        ended = self._ledger.leave() if self.run.tracked else self._clock()
        with self._lock:
            draft = self._draft
            if draft is not None and status == "interrupted":
                draft.interrupted = True
        self._turn_over(ended, None)
        with self._lock:
            unplaced = self._unplaced

        ended_at = max(self.run.started_at, datetime.fromtimestamp(ended, UTC))
        self.ending = Ending(status, ended_at, reason)

        def last() -> None:  # is tried again when it fails: each part must count once
            nonlocal unplaced
            if unplaced:
                self.store.add_late_reports(self.run.run_id, unplaced)
                unplaced = 0
            self.store.finish_run(self.run.run_id, status, ended_at, reason)

        if not self._writer.close(timeout_s, last):
            left = self._writer.undelivered_rounds
            self.failures.note("store", f"{left} round(s) are not stored yet at the end")
        self._ledger.close()

    def delivered(self, timeout_s: float = 0.0) -> bool:
        """After `finish`: whether all of the run is in the store, waiting for it so long."""
        return self._writer.wait_done(timeout_s)

    def leftovers(self) -> Sequence[RoundRecord]:
        """The process is about to go: try no more, and return what is not in the store."""
        return self._writer.abandon()

    @_harmless
    def give_up(self) -> None:
        """Nobody keeps what the store has not taken: try no more, and say what is lost."""
        if lost := self.leftovers():
            names = ", ".join(str(record.round) for record in lost[:_MOST_NAMED])
            more = " …" if len(lost) > _MOST_NAMED else ""
            self.failures.note(
                "store",
                f"{len(lost)} round(s) of run {self.run.run_id} are lost, "
                f"the store would not take them: {names}{more}",
            )

    @_harmless
    def release(self) -> None:
        """The process is about to go: let others serve the run."""
        if self._started:
            try:
                self.store.release(self.run.run_id, self.owner)
            except StoreError as error:
                self.failures.note("store", str(error))

    # --- rounds ------------------------------------------------------------------------------

    @_harmless
    def begin_round(self, number: int, attempt: int | None = None) -> None:
        """A round begins, and the one before ends at the same instant.

        ``attempt`` is the next one at that round where it is not given.

        Waits, but never for long, until what is known of the one before is on disk.
        """
        if self._finished or not self._started:
            return
        key = self._key(number) if attempt is None else (number, attempt)
        with self._lock:
            known = self._draft is not None and self._draft.key == key
        if known:
            return
        self._writer.barrier(BARRIER_S)
        self._turn_over(self._enter(key, "configure"), key)
        self._write_open()

    @_harmless
    def enter(self, phase: ServerPhase) -> None:
        """The server goes over to another phase of the round."""
        with self._lock:
            draft = self._draft
        if draft is not None and not self._finished:
            self._enter(draft.key, phase)

    @_harmless
    def aggregated(self, arrived: bool, metrics: Mapping[str, Any] | None) -> None:
        """Aggregation has ended; ``arrived`` says whether there is a new model. The server is idle."""
        with self._lock:
            draft = self._draft
            if draft is None:
                return
            draft.aggregated = arrived
            draft.train_metrics = metrics
            if not arrived and draft.failure is None:
                draft.failure = "nothing was aggregated"
        self._enter(draft.key, "idle")

    @_harmless
    def evaluating(self) -> None:
        """Evaluation begins. What training came to is stored meanwhile."""
        with self._lock:
            draft = self._draft
        if draft is not None:
            self._enter(draft.key, "evaluate")
            self._write_open()

    @_harmless
    def evaluated(self, metrics: Mapping[str, Any] | None) -> None:
        """Evaluation has ended; the server is idle."""
        with self._lock:
            draft = self._draft
            if draft is None:
                return
            draft.evaluate_metrics = metrics
        self._enter(draft.key, "idle")
        self._write_open()

    @_harmless
    def round_failed(self, reason: str) -> None:
        """The round has no new model, and why; the first reason stands."""
        with self._lock:
            draft = self._draft
            if draft is not None and draft.failure is None:
                draft.failure = reason

    @_harmless
    def privacy(self, epsilon: float | None, noise: NoiseRecord | None) -> None:
        """What the run has spent of its privacy so far, and the noise of this round's model.

        ``epsilon`` is shown and exported, ``noise`` only stored; None is "not accounted for" and
        "nothing was released".
        """
        with self._lock:
            if self._draft is not None:
                self._draft.privacy_epsilon = epsilon
                self._draft.noise = noise

    # --- clients -------------------------------------------------------------------------------

    @_harmless
    def seen(self, node: Node, name: str | None, loopback: bool | None) -> None:
        """A node connected."""
        self.names.seen(node, name, loopback)
        with self._lock:
            self._connected.add(node)
            self._sees_connections = True

    @_harmless
    def gone(self, node: Node) -> None:
        """A node disconnected."""
        self.names.gone(node)
        with self._lock:
            self._connected.discard(node)

    @_harmless
    def sent(
        self, phase: Phase, nodes: Sequence[Node], at: float | None = None,
        size_bytes: int | None = None,
    ) -> None:  # fmt: skip
        """A message went out to each of these nodes."""
        self._append(Sent(phase, nodes, self._clock() if at is None else at, size_bytes))

    @_harmless
    def replied(self, node: Node, phase: Phase, at: float, size_bytes: int | None = None) -> None:
        """One node's reply arrived."""
        self._append(ReplyArrived(phase, node, at, size_bytes))

    @_harmless
    def failed(self, node: Node, reason: str) -> None:
        """A node's update cannot be used."""
        self._append(Failed(node, reason))

    @_harmless
    def replies(self, phase: Phase, replies: Sequence[ReplyParts]) -> None:
        """Replies are here, with the reports taken out. After those to training comes aggregation."""
        with self._lock:
            draft = self._draft
            if draft is None:
                return
        draft.events.append(Replied(phase, replies, self._clock()))
        if phase == "train":
            self._enter(draft.key, "aggregate")

    @_harmless
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
        event = LateReport(phase, node, report, round_number, sent_at, self._clock())
        with self._lock:
            if self._draft is None:
                self._unplaced += 1
            else:
                self._draft.events.append(event)

    def settle(self, timeout_s: float) -> bool:
        """Have what is known of the open round stored, its energy read to now.

        Not for the training's thread: it waits for the meter, and ``timeout_s`` for the store. False
        if that takes longer.
        """
        if self.run.tracked:
            self._ledger.catch_up()
        self._write_open()
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
        with self._overhead_lock:
            return self._overhead_s

    @property
    def writes(self) -> Durations:
        """How long the store took for each round."""
        return self._writer.writes

    @property
    def round_key(self) -> RoundKey | None:
        """(round, attempt) of the open round."""
        with self._lock:
            return None if self._draft is None else self._draft.key

    # --- inside ----------------------------------------------------------------------------------

    def _key(self, number: int) -> RoundKey:
        return number, (self._attempts or {}).get(number, 1)

    def _enter(self, key: RoundKey, phase: ServerPhase) -> float:
        return self._ledger.enter(key, phase) if self.run.tracked else self._clock()

    def _append(self, event: Event) -> None:
        with self._lock:
            if self._draft is not None:
                self._draft.events.append(event)

    def _turn_over(self, now: float, key: RoundKey | None) -> None:
        """End the open round and begin another (None: none) at one instant: a report that arrives
        from another thread meanwhile is in the one or in the other.
        """
        with self._lock:
            draft, builder = self._draft, self._builder
            if key is None:
                self._draft = self._builder = None
            else:
                connected = len(self._connected) if self._sees_connections else None
                self._draft = Draft(key, started_at=now, connected=connected)
                self._builder = FactBuilder(self._draft, self.names, tracked=self.run.tracked)
            if draft is not None and builder is not None:
                draft.ended_at = now
                self._submit(draft, builder, closed=True)

    @_guarded
    def _refresh(self) -> None:
        """Now and then, from the writer's thread: store how far the open round is."""
        if self.run.tracked:
            self._ledger.refresh()
        self._write_open()

    def _write_open(self) -> None:
        with self._lock:
            if self._draft is not None and self._builder is not None:
                self._submit(self._draft, self._builder, closed=False)

    def _submit(self, draft: Draft, builder: FactBuilder, *, closed: bool) -> None:
        """Under the lock, so that revisions reach the writer in their order."""
        draft.revision += 1
        revision = draft.revision

        def make() -> RoundRecord:
            with self._lock:  # a copy: the training goes on with the original
                seen = dataclasses.replace(draft)
            return self._maker.make(seen, builder, revision, closed=closed)

        self._writer.submit(draft.key, make, closed=closed)

    def _meter_failed(self, failure: MeterError) -> None:
        if isinstance(failure, MeterHangs):
            self.failures.note("meter", failure.reason)
        else:
            self.failures.note("meter", f"the server is not metered: {failure.reason}")
