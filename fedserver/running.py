"""Runs one training from a configuration to its artefacts: the job of ``fedserver run``."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count

import numpy as np
from flwr.app import ArrayRecord

from fedserver.assemble import Server, assemble
from fedserver.config import ServerConfig
from fedserver.ending import (
    FINAL_WRITE_S,
    Outcome,
    end_run,
    end_sending,
    finish_as_failed,
    let_go,
    log_end,
    tell_again,
)
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
from fedserver.resuming import Resumed, find_resumable, saver
from fedserver.stopping import StopSignal
from fedserver.terminal.display import LiveDisplay
from fedserver.terminal.facts import facts_of
from fedserver.transport import (
    AddressError,
    NoInitialModel,
    Stopped,
    TooFewClients,
    check_address,
    prepare_flower_process,
)
from fedserver.wording import round_line
from fedserver_hooks.meter import Meter
from telemetry.domain import RoundRecord
from telemetry.errors import TelemetryError
from telemetry.service.app import auth_failures_counter
from telemetry.store import Store
from telemetry.writer import Failures

logger = logging.getLogger(__name__)


def run_server(
    config: ServerConfig,
    *,
    resume: str | None = None,
    meter: Meter | None = None,
    display: LiveDisplay | None = None,
    on_ready: Callable[[Server, str], None] | None = None,
    on_ended: Callable[[Outcome, Store], None] | None = None,
) -> Outcome:
    """Train as configured and return how it ended.

    ``resume`` names a run that ended before its time: it goes on after its last checkpoint, bit for
    bit as if it had never stopped.

    Raises `ConfigError` for whatever is wrong before the FL port opens; from then on nothing that
    telemetry does can end the run. ``on_ready`` is called with the parts and the address of
    ``/metrics`` once clients may come, ``on_ended`` before HTTP lingers (default: log the end).
    ``display`` shows the training on a terminal from the one to the other.
    """
    stop = StopSignal()
    step = _steps(display)
    with stop.installed(), ExitStack() as stack:
        if display is not None:
            stack.callback(display.close)
        step("the database")
        failures = Failures()
        store = open_the_store(config, stack, failures)
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
        step("the power meter")
        server = check(
            lambda: assemble(
                config,
                store,
                meter=meter,
                gate=gate,
                certificates=certificates,
                on_round_closed=log_round(config),
                watch=None if display is None else display.watch,
                resume=None if resumed is None else resumed.run_id,
            ),
            TelemetryError,
            "emissions",
        )
        server.recorder.failures.include(failures)
        sender = sender_of(config, store, server.recorder)
        http = bind_http(config, store, server.recorder, refusals, sender=sender)
        check(server.recorder.start, TelemetryError, "telemetry.database_url")
        stack.callback(let_go, config, server, stop)
        if sender is not None:
            stack.callback(end_sending, sender, lambda: stop.is_set)
            sender.start()
        stack.push(finish_as_failed(server.recorder))
        step("the ports")
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
        if display is not None:
            display.training(lambda: facts_of(config, server))
        if on_ready is not None:
            on_ready(server, metrics_url)
        try:
            result = _train(config, server, arrays, resumed)
        except BaseException:
            server.grid.stop(0.0)
            raise
        outcome = end_run(config, store, server, result, stop)
        if display is not None:
            display.close()
        (on_ended or log_end)(outcome, store)
        if not stop.is_set:
            _linger(config, stop, metrics_url)
        if not outcome.complete and server.recorder.delivered(
            0.0 if stop.is_set else FINAL_WRITE_S
        ):
            outcome = tell_again(config, store, server, outcome, result)
        return outcome


def _steps(display: LiveDisplay | None) -> Callable[[str], None]:
    """Shows the steps of the start, one after another."""
    numbers = count(1)
    return lambda what: None if display is None else display.step(what, next(numbers), 3)


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


def log_round(config: ServerConfig) -> Callable[[RoundRecord], None]:
    """One line for each round that has closed."""

    def log(record: RoundRecord) -> None:
        if record.round > 0:
            logger.info("%s", round_line(record, config.rounds, config.metrics))

    return log


def _linger(config: ServerConfig, stop: StopSignal, url: str) -> None:
    """Keep ``/metrics`` up for the last scrapes."""
    linger_s = config.telemetry.http.linger_s
    seconds = None if linger_s == "forever" else linger_s
    if seconds == 0:
        return
    how_long = "until it is stopped" if seconds is None else f"for {seconds:g} s"
    logger.info("%s stays up %s", url, how_long)
    stop.wait(seconds)
