"""Runs one training from a configuration to its artefacts: the job of ``fedserver run``."""

from __future__ import annotations

import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np
from flwr.app import ArrayRecord

from fedserver.artefacts import write_artefacts
from fedserver.assemble import Server, assemble
from fedserver.checkpoint import remove_checkpoint
from fedserver.config import ServerConfig
from fedserver.leftovers import keep_rest
from fedserver.loop import LoopResult, run_rounds
from fedserver.preparing import (
    bind_http,
    certificates_of,
    check,
    check_output,
    gate_of,
    initial_model,
    open_the_store,
    sender_of,
)
from fedserver.resuming import Resumed, find_resumable, folder_of, saver
from fedserver.transport import (
    AddressError,
    NoInitialModel,
    Stopped,
    TooFewClients,
    check_address,
    prepare_flower_process,
)
from fedserver.wording import closing_line, round_line, sealed_line
from fedserver_hooks.intensity import lookup
from fedserver_hooks.meter import Meter
from fedserver_hooks.recorder import RoundRecorder
from telemetry.domain import RoundRecord, RunStatus
from telemetry.errors import TelemetryError
from telemetry.sender import Sender
from telemetry.service.app import auth_failures_counter
from telemetry.store import Store

logger = logging.getLogger(__name__)

EXIT_COMPLETED: Final = 0
EXIT_FAILED: Final = 1
ENDED_WELL: Final = ("completed", "stopped_on_budget")
"""Ends as configured: exit code 0, and no run to resume."""
DISCONNECT_GRACE_S: Final = 5.0
"""How long an ordinary end waits for clients that are still busy."""
FINAL_WRITE_S: Final = 2.0
"""How long an ordinary end waits for the store once more, after lingering."""
SIGNAL_WRITE_S: Final = 0.6
"""How long an end by a signal waits for the store: the process is gone within two seconds."""
FINAL_SEND_S: Final = 5.0
"""How long an ordinary end waits for the telemetry service, after lingering."""
HURRIED_SEND_S: Final = 0.3
STOP_SENDING_S: Final = 0.3


class StopSignal:
    """SIGINT and SIGTERM as an event that the training and the linger wait for."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._event = threading.Event()
        self._on_stop: list[Callable[[], None]] = []

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.number is None:
            self.number = number
        self._event.set()
        for tell in self._on_stop:
            tell()

    def tell(self, callback: Callable[[], None]) -> None:
        """Call this when a signal arrives; at once if one has."""
        self._on_stop.append(callback)
        if self.is_set:
            callback()

    @property
    def is_set(self) -> bool:
        """Whether a signal has arrived."""
        return self._event.is_set()

    def wait(self, timeout_s: float | None) -> bool:
        """Wait for a signal; True if one arrived."""
        return self._event.wait(timeout_s)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + (self.number or 0)

    @contextmanager
    def installed(self) -> Iterator[StopSignal]:
        """Handle both signals here, and give them back afterwards."""
        before = {s: signal.signal(s, self) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    run_id: str
    exit_code: int
    status: RunStatus
    closing: str
    complete: bool = True
    """Whether all of the run was in the store when this was said."""
    artefacts: list[Path] = field(default_factory=list)


def run_server(
    config: ServerConfig,
    *,
    resume: str | None = None,
    meter: Meter | None = None,
    on_ready: Callable[[Server, str], None] | None = None,
    on_ended: Callable[[Outcome, Store], None] | None = None,
) -> Outcome:
    """Train as configured and return how it ended.

    ``resume`` names a run that ended before its time: it goes on after its last checkpoint, bit for
    bit as if it had never stopped.

    Raises `ConfigError` for whatever is wrong before the FL port opens; from then on nothing that
    telemetry does can end the run. ``on_ready`` is called with the parts and the address of
    ``/metrics`` once clients may come, ``on_ended`` before HTTP lingers (default: log the end).
    """
    stop = StopSignal()
    with stop.installed(), ExitStack() as stack:
        store = open_the_store(config, stack)
        resumed = None if resume is None else find_resumable(config, store, resume)
        arrays = initial_model(config) if resumed is None else resumed.checkpoint.arrays
        check_output(config.model.output_dir)
        check(lambda: check_address(config.server.address), AddressError, "server.address")
        prepare_flower_process()
        if config.seed is not None:
            random.seed(config.seed)
            np.random.seed(config.seed)
        refusals = auth_failures_counter()
        gate = gate_of(config, refusals)
        certificates = certificates_of(config)
        server = check(
            lambda: assemble(
                config,
                store,
                meter=meter,
                gate=gate,
                certificates=certificates,
                on_round_closed=log_round(config),
                resume=None if resumed is None else resumed.run_id,
            ),
            TelemetryError,
            "emissions",
        )
        sender = sender_of(config, store, server.recorder)
        http = bind_http(config, store, server.recorder, refusals, sender=sender)
        check(server.recorder.start, TelemetryError, "telemetry.database_url")
        stack.callback(_let_go, config, server, stop)
        if sender is not None:
            stack.callback(end_sending, sender, lambda: stop.is_set)
            sender.start()
        stack.push(finish_as_failed(server.recorder))
        stack.callback(http.stop)
        http.start()
        metrics_url = f"{http.url}/metrics"
        if resumed is not None:
            resumed.restore(server.strategy)
        server.grid.start()
        if gate is not None:
            stack.enter_context(gate.watching(server.grid.expel))
        stop.tell(server.grid.request_stop)
        logger.info(
            "run %s (%s): clients may connect to %s; metrics at %s",
            server.recorder.run.run_id,
            server.recorder.run.run_name,
            server.grid.address,
            metrics_url,
        )
        if resumed is not None:
            logger.info(
                "going on with round %d of %d; the clients of before have ended with their "
                "connection and must be started again",
                resumed.next_round,
                config.rounds,
            )
        if not config.track_emissions:
            logger.info("emissions are not tracked (track_emissions: false)")
        if on_ready is not None:
            on_ready(server, metrics_url)
        try:
            result = _train(config, server, arrays, resumed)
        except BaseException:
            server.grid.stop(0.0)
            raise
        outcome = _end(config, store, server, result, stop)
        (on_ended or _log_end)(outcome, store)
        if not stop.is_set:
            _linger(config, stop, metrics_url)
        if not outcome.complete and server.recorder.delivered(
            0.0 if stop.is_set else FINAL_WRITE_S
        ):
            outcome = _tell_again(config, store, server, outcome, result)
        return outcome


# --- the training --------------------------------------------------------------------------------


def _train(
    config: ServerConfig, server: Server, arrays: ArrayRecord | None, resumed: Resumed | None
) -> LoopResult:
    clients = config.cohort
    try:
        if arrays is None:
            logger.info("no model.initial: a client will be asked for its model")
            # Only once everybody is there: the first to come may be one without a model.
            server.grid.require(clients.needed_to_train, clients.wait_timeout_s)
            server.grid.get_node_ids()
            arrays = server.grid.initial_arrays(config.round_timeout_s)
        return run_rounds(
            server.strategy,
            server.grid,
            arrays,
            rounds=config.rounds,
            round_timeout_s=config.round_timeout_s,
            wait_timeout_s=clients.wait_timeout_s,
            min_nodes=clients.needed_to_train,
            min_evaluate_nodes=clients.needed_to_evaluate,
            max_failed_rounds=clients.max_failed_rounds,
            first_round=1 if resumed is None else resumed.next_round,
            may_go_on=None if server.budget is None else server.budget.may_go_on,
            on_round_end=saver(config, server.recorder.run.run_id, server.strategy),
        )
    except Stopped:
        return LoopResult(arrays=arrays, rounds_played=0, ended="interrupted", reason=None)
    except (NoInitialModel, TooFewClients) as error:
        return LoopResult(arrays=None, rounds_played=0, ended="failed", reason=str(error))


def finish_as_failed(recorder: RoundRecorder) -> Callable[..., bool]:
    """On any exception: the run ends as failed, with the reason (a no-op once it has ended)."""

    def on_exit(kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if kind is not None:
            recorder.finish("failed", f"{kind.__name__}: {error}"[:256], SIGNAL_WRITE_S)
        return False

    return on_exit


def log_round(config: ServerConfig) -> Callable[[RoundRecord], None]:
    """One line for each round that has closed."""

    def log(record: RoundRecord) -> None:
        if record.round > 0:
            logger.info("%s", round_line(record, config.rounds, config.metrics))

    return log


# --- the end -------------------------------------------------------------------------------------


def _end(
    config: ServerConfig, store: Store, server: Server, result: LoopResult, stop: StopSignal
) -> Outcome:
    """Finish the record, let the clients go, write the artefacts."""
    recorder = server.recorder
    hurried = stop.is_set
    if result.reason and result.ended != "stopped_on_budget":  # the closing line says that one
        logger.error("the run %s: %s", result.ended, result.reason)
    if hurried:
        recorder.finish(result.ended, result.reason, SIGNAL_WRITE_S)
    else:
        recorder.finish(result.ended, result.reason)
    server.grid.disconnect_all(0.0 if hurried else DISCONNECT_GRACE_S)
    server.grid.stop(0.2 if hurried else 0.5)
    run_id = recorder.run.run_id
    # Asked before they are written: what is in the store from here on, its seal too, is in them.
    complete = recorder.delivered()
    paths = write_artefacts(config.model.output_dir / run_id, store, run_id, result.arrays)
    if result.ended in ENDED_WELL:  # nothing is left to go on with
        remove_checkpoint(folder_of(config, run_id))
    else:
        _log_how_to_resume(config, run_id)
    closing = closing_of(store, run_id)
    if not complete:
        left = recorder.undelivered_rounds
        closing = f"incomplete, {left} round(s) are not in the store yet: {closing}"
    codes = {"failed": EXIT_FAILED, "interrupted": stop.exit_code}
    code = codes.get(result.ended, EXIT_COMPLETED)
    return Outcome(run_id, code, result.ended, closing, complete, paths)


def _tell_again(
    config: ServerConfig, store: Store, server: Server, outcome: Outcome, result: LoopResult
) -> Outcome:
    """The store has taken what it refused at the end: the artefacts and the total are whole now."""
    run_id = server.recorder.run.run_id
    paths = write_artefacts(config.model.output_dir / run_id, store, run_id, result.arrays)
    whole = replace(outcome, closing=closing_of(store, run_id), complete=True, artefacts=paths)
    logger.info("run %s is in the store now: %s", run_id, whole.closing)
    return whole


def _let_go(config: ServerConfig, server: Server, stop: StopSignal) -> None:
    """Last of all: keep what the store would not take, and give up the run."""
    delivered = keep_rest(config.model.output_dir, server.recorder)
    if delivered or not stop.is_set:  # a signal's two seconds; a dead process is released anyway
        server.recorder.release()


def end_sending(sender: Sender, hurried: Callable[[], bool] = lambda: False) -> None:
    """Deliver the rest if that is quickly done, and say what has to wait for somebody else."""
    if hurried():
        sender.drain(HURRIED_SEND_S)
    else:
        sender.drain(FINAL_SEND_S, unless=hurried)
    sender.stop(STOP_SENDING_S)
    left = sender.backlog()
    if left.oldest_at is not None:
        logger.warning(
            "%d round(s), or how a run ended, are not with the telemetry service: the next start "
            "delivers them, or fedserver telemetry flush",
            left.rounds,
        )


def _log_how_to_resume(config: ServerConfig, run_id: str) -> None:
    if folder_of(config, run_id).exists():
        logger.info(
            "to go on after the last whole round, with the same configuration: "
            "fedserver run --resume %s",
            run_id,
        )


def _log_end(outcome: Outcome, _: Store) -> None:
    logger.info("run %s %s: %s", outcome.run_id, outcome.status, outcome.closing)
    for path in outcome.artefacts:
        logger.info("wrote %s", path)


def closing_of(store: Store, run_id: str) -> str:
    """The run's figures in one line, as they stand in the store."""
    try:
        run = store.run(run_id)
        rounds = list(store.rounds(run_id))
    except TelemetryError as error:
        return f"the footprint could not be read back: {error}"
    closing = closing_line(run, rounds, country_name(run.info.factors.country))
    return sealed_line(closing, run)


def country_name(code: str | None) -> str | None:
    """A country's name by its code; None where the tables are not installed or do not know it."""
    if code is None:
        return None
    try:
        return lookup(code).country_name
    except TelemetryError:
        return None


def _linger(config: ServerConfig, stop: StopSignal, url: str) -> None:
    """Keep ``/metrics`` up for the last scrapes."""
    linger_s = config.telemetry.http.linger_s
    seconds = None if linger_s == "forever" else linger_s
    if seconds == 0:
        return
    how_long = "until it is stopped" if seconds is None else f"for {seconds:g} s"
    logger.info("%s stays up %s", url, how_long)
    stop.wait(seconds)
